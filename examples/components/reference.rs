//! What the functions are to find, computed by differential dataflow's own iteration.
//!
//! It knows nothing of functions and shares no code with them.

use differential_dataflow::VecCollection;
use differential_dataflow::operators::iterate::Iterate;

/// Pairs of systems, or of a system and a value that it has.
pub type Pairs<'scope> = VecCollection<'scope, u64, (u64, u64)>;
pub type Systems<'scope> = VecCollection<'scope, u64, u64>;

/// Links in both directions, each once, however often the input has them.
pub fn both_ways(links: Pairs<'_>) -> Pairs<'_> {
    links.clone().map(|(from, to)| (to, from)).concat(links).distinct()
}

/// Each system with the smallest one that it is connected with.
pub fn components<'scope>(links: Pairs<'scope>, roots: Systems<'scope>) -> Pairs<'scope> {
    let systems = links.clone().map(|(system, _)| system).concat(roots).distinct();
    spread(links, systems.map(|system| (system, system)), |label| label)
}

/// Each system that is connected with a root, with how many hops it is from it.
pub fn distances<'scope>(links: Pairs<'scope>, roots: Systems<'scope>) -> Pairs<'scope> {
    spread(links, roots.map(|root| (root, 0)), |hops| hops + 1)
}

/// Hands values on along links, each as what `step` makes of it, until no system is offered a smaller
/// one than it has.
fn spread<'scope>(
    links: Pairs<'scope>,
    from: Pairs<'scope>,
    step: fn(u64) -> u64,
) -> Pairs<'scope> {
    from.clone().iterate(|scope, values| {
        let (links, from) = (links.enter(scope), from.enter(scope));
        values
            .join_map(links, move |_, value, neighbour| (*neighbour, step(*value)))
            .concat(from)
            .reduce(|_, values, smallest| smallest.push((*values[0].0, 1)))
    })
}

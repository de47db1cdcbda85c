//! The one function of the job: a system, which tells its neighbours what it knows of where it is.
//!
//! It does not depend on the order in which messages reach it, whatever their times. It knows of no
//! batches, files or workers.

use serde::{Deserialize, Serialize};
use timely_statefun::{Context, Egress, Function, FunctionType, Functions, ValueSpec};

pub const SYSTEM: FunctionType<ToSystem> = FunctionType::new("internet/system");

/// A change of a value that a system has: `((system, value), time, change)`.
pub type Change = ((u64, u64), u64, isize);

/// The component that a system is in, by the smallest system in it.
pub const COMPONENTS: Egress<Change> = Egress::new("internet/components");
/// How many hops a system is from the root; nothing for one that is not connected with it.
pub const DISTANCES: Egress<Change> = Egress::new("internet/distances");

const NEIGHBOURS: ValueSpec<Vec<u64>> = ValueSpec::typed("neighbours", "internet/neighbours");
const PLACE: ValueSpec<Place> = ValueSpec::typed("place", "internet/place");

/// What a system is told. There is only one kind of function, so this is the job's message type.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ToSystem {
    /// There is a link to this neighbour. Whoever says so tells the neighbour as well.
    Link(u64),
    /// It is the root.
    Root,
    /// What a neighbour knows of itself.
    Neighbour(Known),
}

/// What a system knows of where it is. Both numbers only ever become smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The smallest system that it is connected with, which may be itself.
    smallest: u64,
    /// How many hops away the root is, if it is connected with it.
    hops: Option<u64>,
}

/// What a system knows, and when it last learnt something.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Place {
    known: Known,
    since: u64,
}

impl Known {
    /// The better of both in each respect.
    fn or(self, other: Known) -> Known {
        let hops = match (self.hops, other.hops) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Known { smallest: self.smallest.min(other.smallest), hops }
    }
}

/// The functions and egresses of the job.
pub fn functions() -> Functions<ToSystem> {
    let system = Function::new(|context, told| {
        let own = own(context);
        let news = match *told {
            ToSystem::Link(neighbour) => {
                link(context, own, neighbour);
                Known { smallest: own, hops: None }
            }
            ToSystem::Root => Known { smallest: own, hops: Some(0) },
            ToSystem::Neighbour(known) => Known { hops: known.hops.map(|hops| hops + 1), ..known },
        };
        learn(context, own, news);
        Ok(())
    });
    Functions::new()
        .named("components")
        .embedded(SYSTEM, system.value(NEIGHBOURS).value(PLACE))
        .egress(COMPONENTS)
        .egress(DISTANCES)
}

/// Remembers a neighbour and tells it what this system knows. What this system learns later it tells
/// all its neighbours, so that both ends of a link agree when no message is under way.
fn link(context: &mut Context<'_, ToSystem>, own: u64, neighbour: u64) {
    let known = context.get(NEIGHBOURS).is_some_and(|known| known.contains(&neighbour));
    // From a link to itself a system learns nothing but that it is there.
    if known || neighbour == own {
        return;
    }
    context.update(NEIGHBOURS, |neighbours| neighbours.push(neighbour));
    if let Some(place) = context.get(PLACE).copied() {
        context.send(SYSTEM, neighbour, ToSystem::Neighbour(place.known));
    }
}

/// Takes what is better than what this system knows, says what that changes, and hands it on.
fn learn(context: &mut Context<'_, ToSystem>, own: u64, news: Known) {
    let before = context.get(PLACE).copied();
    let alone = Known { smallest: own, hops: None };
    let known = before.map_or(alone, |before| before.known).or(news);
    if before.is_some_and(|before| before.known == known) {
        return;
    }
    // Messages of a later time can be handled before those of an earlier one. Were the second change
    // put before the first, the system would have two values in between, or none.
    let since = before.map_or(0, |before| before.since).max(*context.time());
    let (smallest, hops) =
        before.map_or((None, None), |Place { known, .. }| (Some(known.smallest), known.hops));
    change(context, COMPONENTS, own, (smallest, Some(known.smallest)), since);
    change(context, DISTANCES, own, (hops, known.hops), since);
    context.set(PLACE, Place { known, since });
    // A system can hear what a neighbour knows before it hears of the link. It tells that neighbour
    // when it does.
    let neighbours = context.get(NEIGHBOURS).cloned().unwrap_or_default();
    for neighbour in neighbours {
        context.send(SYSTEM, neighbour, ToSystem::Neighbour(known));
    }
}

/// Emits what makes of one value of a system another.
fn change(
    context: &mut Context<'_, ToSystem>,
    egress: Egress<Change>,
    own: u64,
    (before, after): (Option<u64>, Option<u64>),
    since: u64,
) {
    if before == after {
        return;
    }
    for (value, change) in [(before, -1), (after, 1)] {
        if let Some(value) = value {
            context.emit(egress, ((own, value), since, change));
        }
    }
}

fn own(context: &Context<'_, ToSystem>) -> u64 {
    context.id().as_number().expect("systems are numbered")
}

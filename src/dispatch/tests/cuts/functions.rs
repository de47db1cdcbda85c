//! Functions that do, by chance, whatever a function can do.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dead_letter::OnFailure;
use crate::dispatch::{Bound, Context, Egresses, Names, Outcome};
use crate::endpoint::Endpoint;
use crate::expiration::after_write;
use crate::function::{Body, Function, FunctionResult};
use crate::retry::Retry;
use crate::{
    Address, BufferSpec, DeadLetter, Egress, FunctionType, Id, Namespace, TableSpec, TypeName,
    ValueSpec,
};

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Errand {
    pub(super) number: u64,
    /// How many messages it may still lead to.
    pub(super) fuel: u32,
    /// Whether it says that an outcome is unknown.
    pub(super) is_unknown: bool,
}

crate::json_type!(Errand, "test/errand");

impl Errand {
    pub(super) fn new(number: u64, fuel: u32) -> Self {
        Errand { number, fuel, is_unknown: false }
    }
}

pub(super) const KEEPER: FunctionType<Errand> = FunctionType::new("test/keeper");
pub(super) const LONER: FunctionType<Errand> = FunctionType::new("test/loner");
pub(super) const REMOTE: FunctionType<Errand> = FunctionType::new("test/remote");
pub(super) const AWAY: FunctionType<Errand> = FunctionType::new("test/away");
pub(super) const PLUGINS: Namespace<Errand> = Namespace::new("plugins");
const BOUND: [FunctionType<Errand>; 4] = [KEEPER, LONER, REMOTE, AWAY];

const COUNT: ValueSpec<u64> = ValueSpec::new("count");
const FADING: ValueSpec<u64> = ValueSpec::new("fading").expiring(after_write(300));
const TABLE: TableSpec<u64, String> = TableSpec::new("table");
const BUFFER: BufferSpec<u64> = BufferSpec::new("buffer");
const LETTERS: Egress<DeadLetter<Errand>> = Egress::new("test/letters");

/// Numbers by chance, which everybody draws from.
#[derive(Clone)]
pub(super) struct Chance(Rc<RefCell<u64>>);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Chance(Rc::new(RefCell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678)))
    }

    pub(super) fn draw(&self, below: u64) -> u64 {
        let mut random = self.0.borrow_mut();
        *random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*random >> 33) % below
    }

    /// Whether it is one time in so many.
    pub(super) fn one_in(&self, times: u64) -> bool {
        self.draw(times) == 0
    }

    pub(super) fn id(&self) -> Id {
        match self.draw(12) {
            number @ 0..6 => Id::from(number),
            number => Id::new(&format!("id {number}")),
        }
    }

    /// Some address; few of them are of functions that are not bound.
    pub(super) fn address(&self) -> Address {
        let id = self.id();
        match self.draw(12) {
            number @ 0..4 => BOUND[number as usize].at(id),
            number @ 4..7 => PLUGINS.at(&format!("p{number}"), id).unwrap(),
            7..9 => REMOTE.at(id),
            9 => AWAY.at(id),
            10 => KEEPER.at(id),
            _ => Address::new(TypeName::new("nobody/there").unwrap(), id),
        }
    }
}

/// Does anything. What it sends has less fuel.
fn act(
    context: &mut Context<'_, Errand, u32>,
    errand: &Errand,
    chance: &Chance,
    is_plugin: bool,
) -> FunctionResult {
    let number = chance.draw(1000);
    for _ in 0..chance.draw(8) {
        match chance.draw(14) {
            0 => context.set(COUNT, number),
            1 => context.clear(COUNT),
            2 => context.set(FADING, number),
            3 if is_plugin => {
                let name = format!("found {}", number % 5).replace(' ', "-");
                context.set(ValueSpec::<u64, &str>::new(&name), number);
            }
            3 | 4 => _ = context.table(TABLE).insert(number % 20, number.to_string()),
            5 => _ = context.table(TABLE).remove(&(number % 20)),
            6 => context.buffer(BUFFER).append(number),
            7 if chance.one_in(4) => context.buffer(BUFFER).clear(),
            7 | 8 if errand.fuel > 0 => {
                context.forward(chance.address(), Errand::new(number, errand.fuel - 1));
            }
            9 | 10 if errand.fuel > 0 => {
                let token = format!("token {}", number % 3);
                let token = number.is_multiple_of(2).then_some(token);
                let delay = Duration::from_millis([1, 30, 400, 5_000][chance.draw(4) as usize]);
                let later = Errand::new(number, errand.fuel - 1);
                let set = context.forward_after(token.as_deref(), delay, chance.address(), later);
                // A token that is in use is no reason to fail.
                drop(set);
            }
            11 => _ = context.cancel(&format!("token {}", number % 3)),
            12 if errand.fuel > 0 && !is_plugin => {
                let fuel = errand.fuel - 1;
                let outcome = move |outcome: Outcome<u64>| Errand {
                    number,
                    fuel,
                    is_unknown: outcome == Outcome::Unknown,
                };
                context.start(async move { Ok::<_, Infallible>(number) }, outcome);
            }
            _ => {}
        }
    }
    match chance.one_in(6) {
        true => Err("not this time".into()),
        false => Ok(()),
    }
}

fn function(chance: &Chance, is_plugin: bool) -> Function<Errand, Errand, u32> {
    let chance = chance.clone();
    Function::new(move |context, errand: &Errand| act(context, errand, &chance, is_plugin))
        .value(COUNT)
        .value(FADING)
        .table(TABLE)
        .buffer(BUFFER)
        .on_failure(OnFailure::DeadLetter)
        .retry(Retry::attempts(4).first(Duration::from_millis(20)))
}

/// What is bound everywhere, and the numbers of its types.
pub(super) fn bound(chance: &Chance, worker: usize) -> (Bound<Errand, u32>, Names) {
    let endpoint =
        Endpoint::at("http://localhost").batch_messages_max(3).on_failure(OnFailure::DeadLetter);
    let remote =
        Body { join: Some(|one: &u32, other| *one.max(other)), ..Body::remote(endpoint.clone()) };
    let bodies = [
        function(chance, false).operations(3).body,
        function(chance, false).operations(3).detached().body,
        remote,
        Body::remote(endpoint.detached()),
    ];
    let names = BOUND.iter().map(|of| of.name());
    let bound = Bound {
        functions: names.clone().zip(bodies.map(Rc::new)).collect(),
        namespaces: vec![(
            PLUGINS.name().into(),
            Rc::new(function(chance, true).registry(100).body),
        )],
        depth_max: u32::MAX,
        delayed_messages_max: 1000,
        operations_max: 4,
        in_flight_max: 1000,
        function_bytes_soft: 1_000_000,
        hurry_at_close: false,
        on_unbound: crate::OnUnbound::Fail,
        when_full: OnFailure::Stop,
        worker,
    };
    (bound, Names::new(names, vec![PLUGINS.name().into()]))
}

/// Nobody listens.
pub(super) fn egresses() -> Egresses<u32> {
    Egresses::new(Vec::new(), LETTERS, Rc::new(std::cell::Cell::new(true)))
}

/// Whether what this type waits for holds no time.
pub(super) fn is_detached(function_type: &TypeName) -> bool {
    [LONER.name(), AWAY.name()].contains(function_type)
}

//! Delayed messages that are set, sent off and taken back while they are cut again and again.

use std::collections::BTreeMap;

use super::*;
use crate::codec::Codec;
use crate::dispatch::later::{Change, Later};
use crate::dispatch::pen::{Pen, Slice};
use crate::dispatch::record::{Codecs, Identity, Note, Origin, Said, Stored};
use crate::dispatch::{Head, Routed};
use crate::{Id, placement};

/// What is known of a message: when it is due, its token, its sender, and what it says.
type Known = (u64, Option<String>, Id, u64);

type Waiting = BTreeMap<Identity, Known>;

/// What goes wrong on purpose.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    Kept,
    Tombstones,
}

struct Open {
    is_delta: bool,
    was: Waiting,
    part: Part,
}

struct Program<D> {
    draw: D,
    without: Without,
    later: Later<u64>,
    pen: Pen<u64, u32>,
    origin: Origin,
    /// The model: what waits, by identity, which it counts by itself.
    waiting: Waiting,
    set: u64,
    now_ms: u64,
    /// What is committed: a full cut and the deltas on top of it.
    chain: Vec<Part>,
    open: Option<Open>,
    seen: Seen,
}

/// What happened in a program, so that a test can tell that enough did.
#[derive(Debug, Default)]
struct Seen {
    full_cuts: u64,
    deltas: u64,
    wanted: u64,
    records: usize,
    kept: usize,
    restarts: u64,
}

fn codecs() -> Codecs<u64, u32> {
    Codecs { messages: *Codec::SERDE, times: *Codec::SERDE }
}

fn routed(sender: &Id, message: u64) -> Routed<u64> {
    let target = Id::from(message % 10);
    let hash = placement::hash(&target);
    let head = Head {
        target_type: 4,
        caller_type: 5,
        depth: 3,
        function: 4,
        again: false,
        hash,
        target,
        caller: sender.clone(),
        names: None,
    };
    Routed { head, message }
}

impl<D: FnMut(u64) -> u64> Program<D> {
    fn begin(&mut self, execution: u64) {
        self.origin = Origin { execution, worker: 7 };
        self.later = Later::default();
        self.later.keep_cuts(self.origin, 400);
        self.pen = Pen::new(codecs());
        self.pen.keeps_nothing = self.without == Without::Kept;
        if self.without == Without::Tombstones {
            self.later.lose_tombstones();
        }
        self.set = 0;
    }

    fn sender(&mut self) -> Head {
        routed(&Id::from(0), (self.draw)(10)).head
    }

    fn step(&mut self) -> Result<(), Failed> {
        match (self.draw)(20) {
            0..8 => self.set(),
            8..11 => self.cancel(),
            11..13 => self.send_off()?,
            13 if (self.draw)(12) == 0 => self.restart()?,
            _ => self.cut()?,
        }
        assert_eq!(self.later.len(), self.waiting.len());
        Ok(())
    }

    fn set(&mut self) {
        // The one who sends has the address that its messages go to as callers.
        let mut sender = self.sender();
        sender.target_type = 5;
        let token = match (self.draw)(3) {
            0 => None,
            _ => Some(format!("token {}", (self.draw)(3))),
        };
        if token.as_ref().is_some_and(|token| self.later.find(&sender, token).is_some()) {
            return;
        }
        let spread = [1, 20, 300, 100_000][(self.draw)(4) as usize];
        let due_ms = self.now_ms + (self.draw)(spread);
        let message = (self.draw)(1000);
        let identity = Identity { origin: self.origin, sequence: self.set };
        self.set += 1;
        let id = sender.target;
        self.waiting.insert(identity, (due_ms, token.clone(), id.clone(), message));
        let token = token.map(Into::into);
        let change = Change::Set { due_ms, token, routed: routed(&id, message) };
        self.later.apply([change].into_iter(), Some(&mut self.pen));
    }

    fn cancel(&mut self) {
        let mut sender = self.sender();
        sender.target_type = 5;
        let token = format!("token {}", (self.draw)(3));
        let is_it = |known: &Known| known.1.as_ref() == Some(&token) && known.2 == sender.target;
        let there = self.waiting.iter().find(|(_, known)| is_it(known));
        let there = there.map(|(identity, _)| *identity);
        let key = self.later.find(&sender, &token);
        assert_eq!(key.is_some(), there.is_some());
        if let (Some(key), Some(identity)) = (key, there) {
            self.waiting.remove(&identity);
            self.later.apply([Change::Cancel(key)].into_iter(), Some(&mut self.pen));
        }
    }

    fn send_off(&mut self) -> Result<(), Failed> {
        self.now_ms += (self.draw)(40);
        for _ in 0..(self.draw)(4) {
            let next = self.waiting.iter().min_by_key(|(identity, known)| (known.0, **identity));
            let next = next.filter(|(_, known)| known.0 <= self.now_ms);
            let next = next.map(|(identity, _)| *identity);
            let sent = self.later.next_due(self.now_ms, Some(&mut self.pen));
            let expected = next.and_then(|identity| self.waiting.remove(&identity));
            let sent = sent.map(|routed| (routed.head.depth, routed.head.caller, routed.message));
            let expected = expected.map(|(_, _, sender, message)| (0, sender, message));
            if sent != expected {
                return Err(Failed(format!("{sent:?} was sent off and not {expected:?}")));
            }
        }
        Ok(())
    }

    /// Takes a cut, or goes on with one that was taken.
    fn cut(&mut self) -> Result<(), Failed> {
        let Some(open) = &mut self.open else {
            let wants_full = self.later.wants_full();
            self.seen.wanted += u64::from(wants_full);
            let is_delta = !self.chain.is_empty() && !wants_full && (self.draw)(5) > 0;
            self.pen.begin(true);
            self.later.take_cut(is_delta);
            self.open = Some(Open { is_delta, was: self.waiting.clone(), part: Part::default() });
            return Ok(());
        };
        if (self.draw)(30) == 0 {
            self.later.abandoned();
            self.open = None;
            return Ok(());
        }
        self.seen.kept += usize::from(self.pen.bytes() > 0);
        let budget = &mut Budget { units: 1 + (self.draw)(12) as usize, ..ALL };
        self.pen.pass_on(budget, &mut open.part);
        let mut slice = Slice { pen: &mut self.pen, budget, sink: &mut open.part };
        if !self.later.walk(&mut slice).unwrap() || slice.budget.units == 0 {
            return Ok(());
        }
        let Open { is_delta, was, part } = self.open.take().unwrap();
        self.seen.records += part.records.len();
        let mut chain = if is_delta { self.chain.clone() } else { Vec::new() };
        *if is_delta { &mut self.seen.deltas } else { &mut self.seen.full_cuts } += 1;
        chain.push(part);
        let found = restored(&chain)?;
        if found != was {
            return Err(Failed(format!("{was:?} became {found:?}")));
        }
        match (self.draw)(5) {
            0 => self.later.abandoned(),
            _ => {
                self.later.committed();
                self.chain = chain;
            }
        }
        Ok(())
    }

    /// Loses everything and goes on with what is committed.
    fn restart(&mut self) -> Result<(), Failed> {
        self.open = None;
        self.seen.restarts += 1;
        self.begin(self.origin.execution + 1);
        self.waiting = restored(&self.chain)?;
        let mut order: Vec<_> = self.waiting.iter().collect();
        order.sort_by_key(|(identity, known)| (known.0, **identity));
        let mut origins = BTreeMap::new();
        for (identity, (due_ms, token, sender, message)) in order {
            let origin = identity.origin;
            let number = *origins.entry(origin).or_insert_with(|| self.later.add_origin(origin));
            let token = token.as_deref().map(Into::into);
            let place = (number, identity.sequence);
            self.later.restore(place, *due_ms, token, routed(sender, *message));
        }
        let listed: Waiting = self
            .later
            .list()
            .map(|(identity, due_ms, token, routed)| {
                let known =
                    (due_ms, token.map(str::to_owned), routed.head.caller.clone(), routed.message);
                (identity, known)
            })
            .collect();
        assert_eq!(listed, self.waiting);
        Ok(())
    }
}

/// What a chain of cuts says that waits.
fn restored(chain: &[Part]) -> Result<Waiting, Failed> {
    let mut waiting = Waiting::new();
    for part in chain {
        for Written { kind, bin, types, record } in &part.records {
            match Said::read(*kind, record, &codecs().times).unwrap() {
                Said::Gone(identity) => {
                    assert!(types.is_empty());
                    waiting.remove(&identity);
                }
                Said::Message(Stored { note, caller, message, .. }) => {
                    let Note::Delayed(delay) = note else { panic!("it is delayed") };
                    let (number, sender) = caller.expect("a function sent it");
                    assert_eq!((number, &types[..]), (5, &[4, 5][..]));
                    assert_eq!(u64::from(*bin), placement::bin(placement::hash(&sender)));
                    let message = codecs().messages.read(message).unwrap();
                    let known = (delay.due_ms, delay.token.map(str::to_owned), sender, message);
                    if waiting.insert(delay.identity, known).is_some() {
                        return Err(Failed(format!("{:?} is there twice", delay.identity)));
                    }
                }
            }
        }
    }
    Ok(waiting)
}

fn run(seed: u64, without: Without) -> Result<Seen, Failed> {
    let mut program = Program {
        draw: draws(seed),
        without,
        later: Later::default(),
        pen: Pen::new(codecs()),
        origin: Origin::default(),
        waiting: Waiting::new(),
        set: 0,
        now_ms: 0,
        chain: Vec::new(),
        open: None,
        seen: Seen::default(),
    };
    program.begin(1);
    for _ in 0..1500 {
        program.step()?;
    }
    Ok(program.seen)
}

#[test]
fn what_waits_at_every_cut_is_what_its_chain_says() {
    let mut all = Seen::default();
    for seed in 0..200 {
        let seen = of_seed(seed, || run(seed, Without::Nothing));
        all.full_cuts += seen.full_cuts;
        all.deltas += seen.deltas;
        all.wanted += seen.wanted;
        all.records += seen.records;
        all.kept += seen.kept;
        all.restarts += seen.restarts;
    }
    assert!(all.full_cuts > 500 && all.deltas > 1000 && all.wanted > 50, "{all:?}");
    assert!(all.records > 10_000 && all.kept > 500 && all.restarts > 500, "{all:?}");
}

/// The test above would notice if what it is about were not so.
#[test]
fn what_waits_is_not_exact_without_what_makes_it_so() {
    for without in [Without::Kept, Without::Tombstones] {
        let failed = (0..20).filter(|seed| run(*seed, without).is_err()).count();
        assert!(failed > 15, "without {without:?} {failed} programs fail");
    }
}

//! Random programs whose state is cut again and again.

use super::*;

/// Why a cut was not restored as it was.
#[derive(Debug)]
pub(super) struct Failed(pub(super) String);

const LIFETIMES: [Lifetime; 4] =
    [Lifetime::Ever, Lifetime::Ever, Lifetime::Written(50), Lifetime::Used(160)];
const VALUES: [&str; 4] = ["ever", "also", "written", "used"];

fn value(which: usize) -> ValueSpec<u64> {
    ValueSpec::new(VALUES[which]).expiring(LIFETIMES[which].expiration())
}

fn declared() -> Vec<Declared> {
    (0..4).map(|which| Declared::new(value(which))).collect()
}

/// A piece of state: everything there is to know of it.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    Value(u64, Option<u64>),
}

/// All state, by address and name.
type Dump = BTreeMap<(Id, String), Content>;

fn dump(state: &FunctionState) -> Dump {
    let mut dump = Dump::new();
    for (slot, id) in state.addresses.iter() {
        for (declared, column) in state.declared.iter().zip(&state.columns) {
            let content = if let Some(column) = column.of::<Column<u64>>() {
                column.get(slot).map(|value| Content::Value(*value, None))
            } else if let Some(column) = column.of::<ExpiringColumn<u64>>() {
                let deadline = column.deadline(slot);
                column.values.get(slot).map(|value| Content::Value(*value, Some(deadline)))
            } else {
                unreachable!("there is nothing else")
            };
            if let Some(content) = content {
                dump.insert((id.clone(), declared.name.to_string()), content);
            }
        }
    }
    dump
}

/// How many items of the wheel there must be.
fn items(dump: &Dump) -> usize {
    let counts = dump.values().map(|content| match content {
        Content::Value(_, deadline) => usize::from(deadline.is_some()),
    });
    counts.sum()
}

struct OpenCut {
    number: u32,
    is_full: bool,
    part: Part,
    was: Dump,
}

struct Program<D> {
    draw: D,
    state: FunctionState,
    now_ms: u64,
    /// What is committed: a full cut and the deltas on top of it.
    parts: Vec<Part>,
    open: Option<OpenCut>,
    /// Values that never expire, by address and which of them.
    model: BTreeMap<(Id, usize), u64>,
    without: Option<Without>,
}

/// Runs a program, and says what its first cut was that was not restored as it was.
pub(super) fn run(seed: u64, without: Option<Without>) -> Result<(), Failed> {
    let mut draw = draws(seed);
    let now_ms = draw(2) * 1_700_000_000_000;
    let (state, parts, model) = (fresh(without), Vec::new(), BTreeMap::new());
    let mut program = Program { draw, state, now_ms, parts, open: None, model, without };
    for _ in 0..600 {
        program.step()?;
    }
    Ok(())
}

fn fresh(without: Option<Without>) -> FunctionState {
    let mut state = FunctionState::new(&declared(), None);
    state.keep_cuts(3000);
    state.cuts.as_mut().unwrap().without = without;
    state
}

impl<D: FnMut(u64) -> u64> Program<D> {
    fn step(&mut self) -> Result<(), Failed> {
        match (self.draw)(40) {
            0..5 => {
                let most = [2, 30, 200][(self.draw)(3) as usize];
                self.now_ms += (self.draw)(most);
            }
            5..8 => {
                let pieces = 1 + (self.draw)(5) as usize;
                self.state.expire(self.now_ms, pieces);
            }
            8..18 => return self.cut(),
            18 => return self.restart(),
            _ => self.invoke(),
        }
        Ok(())
    }

    fn invoke(&mut self) {
        // A few that come again and again, and others.
        let known = [6, 6, 6, 200][(self.draw)(4) as usize];
        let number = (self.draw)(known);
        let id = if number.is_multiple_of(3) {
            Id::from(number)
        } else {
            Id::new(&format!("id{number}"))
        };
        let mut cursor = seek_at(&self.state, &id, self.now_ms);
        let mut model = self.model.clone();
        let ends = (self.draw)(6) == 0;
        for which in 0..4 {
            if ends {
                model.remove(&(id.clone(), which));
                self.state.put(&mut cursor, &id, value(which), None).unwrap();
            }
        }
        for _ in 0..(self.draw)(5) {
            let which = (self.draw)(4) as usize;
            match (self.draw)(6) {
                0..3 if !ends => {
                    let content = (self.draw)(1000);
                    self.state.put(&mut cursor, &id, value(which), Some(content)).unwrap();
                    if LIFETIMES[which] == Lifetime::Ever {
                        model.insert((id.clone(), which), content);
                    }
                }
                3 => {
                    self.state.put(&mut cursor, &id, value(which), None).unwrap();
                    model.remove(&(id.clone(), which));
                }
                _ => _ = self.state.get(&cursor, value(which)).unwrap(),
            }
        }
        if (self.draw)(4) == 0 {
            self.state.rollback(cursor);
        } else {
            self.state.commit(cursor);
            self.model = model;
        }
    }

    /// Takes a cut, or goes on with one that was taken.
    fn cut(&mut self) -> Result<(), Failed> {
        let Some(open) = &mut self.open else {
            let is_full = self.parts.is_empty() || self.state.wants_full() || (self.draw)(4) == 0;
            let since = self.state.cuts.as_ref().map(|cuts| cuts.committed);
            let number = self.state.take_cut(since.filter(|_| !is_full));
            let part = Part { headers: self.state.declared_states(), ..Part::default() };
            let was = dump(&self.state);
            let plain = was.iter().filter_map(|((id, name), Content::Value(value, deadline))| {
                let which = VALUES.iter().position(|known| known == name).unwrap();
                deadline.is_none().then(|| ((id.clone(), which), *value))
            });
            assert_eq!(plain.collect::<BTreeMap<_, _>>(), self.model, "it was wrong before");
            self.open = Some(OpenCut { number, is_full, part, was });
            return Ok(());
        };
        if (self.draw)(30) == 0 {
            self.state.abandoned(open.number);
            self.open = None;
            return Ok(());
        }
        let units = 1 + (self.draw)(6) as usize;
        let bytes = [ALL.bytes, 1, 20][(self.draw)(3) as usize];
        if !self.state.walk(Budget { units, bytes }, &mut open.part).unwrap() {
            return Ok(());
        }
        let OpenCut { number, is_full, part, was } = self.open.take().unwrap();
        let mut parts = if is_full { Vec::new() } else { self.parts.clone() };
        parts.push(part);
        self.check(&parts, &was)?;
        if (self.draw)(5) == 0 {
            self.state.abandoned(number);
        } else {
            self.state.committed(number);
            self.parts = parts;
        }
        Ok(())
    }

    /// Restores a cut, into one state and into two.
    fn check(&self, parts: &[Part], was: &Dump) -> Result<(), Failed> {
        let restored = self.restored(parts, |_| true)?;
        same(&dump(&restored), was)?;
        assert_eq!(restored.wheel.len(), items(was), "everything that expires has an item");
        let mut halves = self.restored(parts, |bin| bin % 2 == 0).map(|half| dump(&half))?;
        let other = self.restored(parts, |bin| bin % 2 == 1).map(|half| dump(&half))?;
        let count = halves.len() + other.len();
        halves.extend(other);
        assert_eq!(count, halves.len(), "an address is in one bin");
        same(&halves, was)
    }

    fn restored(
        &self,
        parts: &[Part],
        is_wanted: impl Fn(u16) -> bool,
    ) -> Result<FunctionState, Failed> {
        let mut state = fresh(self.without);
        let restored = restore(&mut state, parts, is_wanted, self.now_ms);
        restored.map_err(|error| Failed(error.to_string()))?;
        let ids = state.addresses.iter().count();
        assert_eq!(state.len(), ids, "an address without state is gone");
        Ok(state)
    }

    /// Loses everything and goes on with what is committed.
    fn restart(&mut self) -> Result<(), Failed> {
        self.open = None;
        self.state = self.restored(&self.parts, |_| true)?;
        let expire_at = self.now_ms + 10_000;
        let mut copy = self.restored(&self.parts, |_| true)?;
        expire_all(&mut copy, expire_at);
        assert_eq!(copy.wheel.len(), 0, "what expires is over at some time");
        self.model = BTreeMap::new();
        for ((id, name), Content::Value(value, deadline)) in dump(&copy) {
            assert_eq!(deadline, None);
            let which = VALUES.iter().position(|known| *known == name).unwrap();
            self.model.insert((id, which), value);
        }
        Ok(())
    }
}

fn same(found: &Dump, was: &Dump) -> Result<(), Failed> {
    let missing = was.iter().find(|(key, content)| found.get(key) != Some(content));
    if let Some((key, content)) = missing {
        return Err(Failed(format!("{key:?}: {content:?} became {:?}", found.get(key))));
    }
    let extra = found.iter().find(|(key, _)| !was.contains_key(key));
    extra.map_or(Ok(()), |extra| Err(Failed(format!("there should not be {extra:?}"))))
}

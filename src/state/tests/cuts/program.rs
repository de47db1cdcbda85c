//! Random programs whose state is cut again and again.

use super::content::{Content, Dump, Failed, dump, same};
use super::*;
use crate::records::Reader;

const LIFETIMES: [Lifetime; 4] =
    [Lifetime::Ever, Lifetime::Ever, Lifetime::Written(50), Lifetime::Used(160)];
pub(super) const VALUES: [&str; 4] = ["value", "value-2", "value-written", "value-used"];
pub(super) const TABLES: [&str; 4] = ["table", "table-2", "table-written", "table-used"];

fn value(which: usize) -> ValueSpec<u64> {
    ValueSpec::new(VALUES[which]).expiring(LIFETIMES[which].expiration())
}

fn table(which: usize) -> TableSpec<String, u64> {
    TableSpec::new(TABLES[which]).expiring(LIFETIMES[which].expiration())
}

pub(super) const BUFFERS: [&str; 4] = ["buffer", "buffer-2", "buffer-written", "buffer-used"];

fn buffer(which: usize) -> BufferSpec<u64> {
    BufferSpec::new(BUFFERS[which]).expiring(LIFETIMES[which].expiration())
}

/// Three function types, of which the second keeps no values, and the third registers everything.
const FUNCTIONS: usize = 3;

fn declared(function: usize) -> Vec<Declared> {
    let values = (0..4).map(|which| Declared::new(value(which)));
    let tables = (0..4).map(|which| Declared::new(table(which)));
    let buffers = (0..4).map(|which| Declared::new(buffer(which)));
    match function {
        0 => values.chain(tables).chain(buffers).collect(),
        1 => buffers.chain(tables).collect(),
        _ => Vec::new(),
    }
}

struct OpenCut {
    number: u32,
    is_full: bool,
    parts: Vec<Part>,
    was: Vec<Dump>,
    /// Which function types are written to the end.
    done: Vec<bool>,
}

/// What happened in a program, so that a test can tell that enough did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) full_cuts: u64,
    pub(super) deltas: u64,
    pub(super) records: u64,
    /// Full cuts that had to be, since too much was taken away.
    pub(super) wanted: u64,
}

/// A program. What there is for each function type comes in the order of function types.
struct Program<D> {
    draw: D,
    states: Vec<FunctionState>,
    now_ms: u64,
    /// What is committed: a full cut and the deltas on top of it.
    chains: Vec<Vec<Part>>,
    open: Option<OpenCut>,
    /// What never expires.
    models: Vec<Dump>,
    without: Option<Without>,
    seen: Seen,
}

/// Runs a program, and says what its first cut was that was not restored as it was.
pub(super) fn run(seed: u64, without: Option<Without>) -> Result<Seen, Failed> {
    let mut draw = draws(seed);
    let now_ms = draw(2) * 1_700_000_000_000;
    let states = (0..FUNCTIONS).map(|function| fresh(function, without)).collect();
    let (chains, models) = (vec![Vec::new(); FUNCTIONS], vec![Dump::new(); FUNCTIONS]);
    let (open, seen) = (None, Seen::default());
    let mut program = Program { draw, states, now_ms, chains, open, models, without, seen };
    for _ in 0..2500 {
        program.step()?;
    }
    program.end();
    Ok(program.seen)
}

fn fresh(function: usize, without: Option<Without>) -> FunctionState {
    let registry = (function == 2).then_some(100);
    let mut state = FunctionState::new(&declared(function), registry);
    state.keep_cuts(1500);
    state.cuts.as_mut().unwrap().without = without;
    state
}

impl<D: FnMut(u64) -> u64> Program<D> {
    fn step(&mut self) -> Result<(), Failed> {
        match (self.draw)(100) {
            0..6 => {
                let most = [2, 30, 200][(self.draw)(3) as usize];
                self.now_ms += (self.draw)(most);
            }
            6..10 => {
                let pieces = 1 + (self.draw)(5) as usize;
                self.states.iter_mut().for_each(|state| _ = state.expire(self.now_ms, pieces));
            }
            10..38 => return self.cut(),
            38 if (self.draw)(5) == 0 => return self.restart(),
            _ => self.invoke(),
        }
        Ok(())
    }

    /// Time passes, and only what never expires is left.
    fn end(&mut self) {
        for (state, model) in self.states.iter_mut().zip(&self.models) {
            if let Some(open) = &self.open {
                state.abandoned(open.number);
            }
            expire_all(state, self.now_ms + 10_000);
            assert_eq!(state.wheel.len(), 0, "nothing waits any more");
            assert_eq!(&dump(state), model);
            assert_eq!(state.len(), state.addresses.iter().count());
        }
    }

    fn invoke(&mut self) {
        let Program { draw, states, now_ms, models, .. } = self;
        let function = draw(FUNCTIONS as u64) as usize;
        let (state, model) = (&mut states[function], &mut models[function]);
        // A few that come again and again, and others.
        let known = [6, 6, 6, 200][draw(4) as usize];
        let number = draw(known);
        let id = match number.is_multiple_of(3) {
            true => Id::from(number),
            false => Id::new(&format!("id{number}")),
        };
        let mut cursor = seek_at(state, &id, *now_ms);
        let before = model.clone();
        let ends = draw(8) == 0;
        if ends {
            for which in 0..4 {
                if function != 1 {
                    state.put(&mut cursor, &id, value(which), None).unwrap();
                }
                state.table(&mut cursor, &id, table(which)).unwrap().clear();
                state.buffer(&mut cursor, &id, buffer(which)).unwrap().clear();
            }
            model.retain(|(of, _), _| *of != id);
        }
        for _ in 0..if ends { draw(2) } else { draw(12) } {
            let which = draw(4) as usize;
            let kind = if function != 1 { draw(5) } else { 1 + draw(4) };
            match kind {
                0 => act_on_value(state, &mut cursor, &id, which, model, draw),
                1 | 2 => {
                    let mut elements = state.buffer(&mut cursor, &id, buffer(which)).unwrap();
                    act_on_buffer(&mut elements, &id, which, model, draw);
                }
                _ => {
                    let mut rows = state.table(&mut cursor, &id, table(which)).unwrap();
                    act_on_table(&mut rows, &id, which, model, draw);
                }
            }
        }
        if draw(4) == 0 {
            state.rollback(cursor);
            *model = before;
        } else {
            state.commit(cursor);
        }
    }

    /// Takes a cut, or goes on with one that was taken.
    fn cut(&mut self) -> Result<(), Failed> {
        let Program { draw, states, chains, .. } = self;
        let Some(open) = &mut self.open else {
            let wants_full = states.iter().any(FunctionState::wants_full);
            self.seen.wanted += u64::from(wants_full);
            let is_full = chains[0].is_empty() || wants_full || draw(4) == 0;
            let since = (!is_full).then(|| states[0].latest_committed());
            let numbers: Vec<_> = states.iter_mut().map(|state| state.take_cut(since)).collect();
            assert_eq!(numbers[0], numbers[1]);
            let was: Vec<_> = states.iter().map(dump).collect();
            for (was, model) in was.iter().zip(&self.models) {
                let kept = was.iter().filter(|(_, content)| content.items() == 0);
                assert!(kept.eq(model), "it was wrong before: {was:?} is not {model:?}");
            }
            let part = |state: &FunctionState| -> Part {
                Part { headers: state.declared_states(), ..Part::default() }
            };
            let parts: Vec<_> = states.iter().map(part).collect();
            for part in &parts {
                let mut headers = Vec::new();
                part.headers.iter().for_each(|header| header.put(&mut headers));
                let mut headers = Reader::new(&headers);
                for header in &*part.headers {
                    assert_eq!(StateHeader::read(&mut headers).as_ref(), Ok(header));
                }
            }
            let (number, done) = (numbers[0], vec![false; FUNCTIONS]);
            self.open = Some(OpenCut { number, is_full, parts, was, done });
            return Ok(());
        };
        if draw(40) == 0 {
            states.iter_mut().for_each(|state| state.abandoned(open.number));
            self.open = None;
            return Ok(());
        }
        let unfinished: Vec<_> = (0..FUNCTIONS).filter(|function| !open.done[*function]).collect();
        let function = unfinished[draw(unfinished.len() as u64) as usize];
        let most = [8, 30, 100, 500][draw(4) as usize];
        let units = 1 + draw(most) as usize;
        let bytes = [ALL.bytes, ALL.bytes, ALL.bytes, 1, 20][draw(5) as usize];
        let budget = Budget { units, bytes };
        open.done[function] =
            states[function].walk(&mut { budget }, &mut open.parts[function]).unwrap();
        if open.done.contains(&false) {
            return Ok(());
        }
        let OpenCut { number, is_full, parts, was, .. } = self.open.take().unwrap();
        let records = |part: &Part| part.records.len() as u64;
        self.seen.records += parts.iter().map(records).sum::<u64>();
        *if is_full { &mut self.seen.full_cuts } else { &mut self.seen.deltas } += 1;
        let mut cut = if is_full { vec![Vec::new(); FUNCTIONS] } else { self.chains.clone() };
        for (function, part) in parts.into_iter().enumerate() {
            assert!(part.is_frugal(), "something is written twice");
            cut[function].push(part);
            self.check(function, &cut[function], &was[function])?;
        }
        if (self.draw)(5) == 0 {
            self.states.iter_mut().for_each(|state| state.abandoned(number));
        } else {
            self.states.iter_mut().for_each(|state| state.committed(number));
            self.chains = cut;
        }
        Ok(())
    }

    /// Restores a cut, into one state and into two.
    fn check(&self, function: usize, chain: &[Part], was: &Dump) -> Result<(), Failed> {
        let restored = self.restored(function, chain, |_| true)?;
        same(&dump(&restored), was)?;
        let items: usize = was.values().map(Content::items).sum();
        assert_eq!(restored.wheel.len(), items, "all that expires has an item");
        let mut halves = dump(&self.restored(function, chain, |bin| bin % 2 == 0)?);
        let other = dump(&self.restored(function, chain, |bin| bin % 2 == 1)?);
        let count = halves.len() + other.len();
        halves.extend(other);
        assert_eq!(count, halves.len(), "an address is in one bin");
        same(&halves, was)
    }

    fn restored(
        &self,
        function: usize,
        chain: &[Part],
        is_wanted: impl Fn(u16) -> bool,
    ) -> Result<FunctionState, Failed> {
        let mut state = fresh(function, self.without);
        let restored = restore(&mut state, chain, is_wanted, self.now_ms);
        restored.map_err(|error| Failed(error.to_string()))?;
        let ids = state.addresses.iter().count();
        assert_eq!(state.len(), ids, "an address without state is gone");
        Ok(state)
    }

    /// Loses everything and goes on with what is committed.
    fn restart(&mut self) -> Result<(), Failed> {
        self.open = None;
        for function in 0..FUNCTIONS {
            let chain = &self.chains[function];
            let mut copy = self.restored(function, chain, |_| true)?;
            expire_all(&mut copy, self.now_ms + 10_000);
            assert_eq!(copy.wheel.len(), 0, "what expires is over at some time");
            self.models[function] = dump(&copy);
            self.states[function] = self.restored(function, chain, |_| true)?;
        }
        Ok(())
    }
}

fn act_on_value(
    state: &mut FunctionState,
    cursor: &mut Cursor,
    id: &Id,
    which: usize,
    model: &mut Dump,
    draw: &mut impl FnMut(u64) -> u64,
) {
    let content = match draw(6) {
        0..3 => Some(draw(1000)),
        3 => None,
        _ => {
            state.get(cursor, value(which)).unwrap();
            return;
        }
    };
    state.put(cursor, id, value(which), content).unwrap();
    let key = (id.clone(), VALUES[which]);
    match content {
        Some(content) if LIFETIMES[which] == Lifetime::Ever => {
            model.insert(key, Content::Value(content, None));
        }
        _ => _ = model.remove(&key),
    }
}

fn act_on_table(
    table: &mut TableAt<'_, String, u64>,
    id: &Id,
    which: usize,
    model: &mut Dump,
    draw: &mut impl FnMut(u64) -> u64,
) {
    let place = (id.clone(), TABLES[which]);
    let mut scratch = Content::Table(BTreeMap::new());
    let rows = match LIFETIMES[which] {
        Lifetime::Ever => model.entry(place.clone()).or_insert(scratch).rows(),
        _ => scratch.rows(),
    };
    // Most tables are small, and some are not.
    let key = format!("key {}", draw(if which == 1 { 40 } else { 12 }));
    match draw(20) {
        0..9 => {
            let content = draw(1000);
            table.insert(key.clone(), content);
            rows.insert(key, (content, None));
        }
        9..15 => {
            table.remove(key.as_str());
            rows.remove(&key);
        }
        15 => {
            table.clear();
            rows.clear();
        }
        16 => _ = table.iter().count(),
        _ => _ = table.get(key.as_str()),
    }
    if rows.is_empty() {
        model.remove(&place);
    }
}

fn act_on_buffer(
    buffer: &mut BufferAt<'_, u64>,
    id: &Id,
    which: usize,
    model: &mut Dump,
    draw: &mut impl FnMut(u64) -> u64,
) {
    let place = (id.clone(), BUFFERS[which]);
    let mut scratch = Content::Buffer(0, Vec::new(), None);
    let elements = match LIFETIMES[which] {
        Lifetime::Ever => model.entry(place.clone()).or_insert(scratch).elements(),
        _ => scratch.elements(),
    };
    let (first, count) = (draw(1000), draw(if which == 1 { 20 } else { 4 }));
    match draw(20) {
        0..8 => {
            buffer.append(first);
            elements.push((first, 0));
        }
        8..12 => {
            buffer.extend(first..first + count);
            elements.extend((first..first + count).map(|element| (element, 0)));
        }
        12 => {
            buffer.replace(first..first + count);
            *elements = (first..first + count).map(|element| (element, 0)).collect();
        }
        13 => {
            buffer.clear();
            elements.clear();
        }
        14..17 => _ = buffer.len(),
        _ => _ = buffer.iter().count(),
    }
    if elements.is_empty() {
        model.remove(&place);
    }
}

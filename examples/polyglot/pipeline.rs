//! The dataflow, from lines of text to bills, and what must come of it.
//!
//! It does not know where the tariff is.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::operators::{Exchange, Input, Inspect};
use timely::worker::Worker;
use timely_statefun::{Functions, StatefulFunctions, Stopped, TypedValue};

use crate::functions::{ACCOUNT, CHARGES, FREE_SECONDS, NOTICES};

/// What is shorter was a wrong number, which nobody pays for.
const LEAST_SECONDS: i32 = 5;
const SECONDS_OF_A_DAY: u64 = 24 * 60 * 60;

/// A call: who pays for it, when it began, and how long it took, in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Call {
    caller: String,
    start: u64,
    seconds: i32,
}

/// What is found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Calls that have a price, be it zero.
    pub calls: u64,
    /// What each phone owes, in cents.
    pub bills: BTreeMap<String, u64>,
    pub notices: BTreeSet<String>,
}

/// A line of the input is `caller callee start seconds`.
fn parse(line: &str) -> Option<Call> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [caller, _callee, start, seconds] = fields[..] else { return None };
    let (start, seconds) = (start.parse().ok()?, seconds.parse().ok()?);
    Some(Call { caller: caller.to_owned(), start, seconds })
}

/// Makes bills of the calls in a text, which worker 0 reads and where the findings are returned.
pub fn run(
    worker: &mut Worker,
    functions: Functions<TypedValue>,
    text: &str,
) -> Result<Option<Findings>, Stopped> {
    let findings = Rc::new(RefCell::new(Findings::default()));
    let (of_charges, of_notices) = (Rc::clone(&findings), Rc::clone(&findings));
    let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
        // Ordinary streams, until a call is a message for an account.
        let (input, lines) = scope.new_input::<Vec<String>>();
        let calls = lines.flat_map(|line| parse(&line));
        let paid = calls.filter(|call| call.seconds >= LEAST_SECONDS);
        let messages = paid.map(|call| ACCOUNT.message(&*call.caller, call.seconds));

        let egresses = messages.stateful_functions(functions);
        let egresses = egresses.expect("functions and egresses are bound once each");

        // Ordinary streams again.
        let charges = egresses.stream(CHARGES).expect("CHARGES is bound");
        charges.exchange(|_| 0).inspect(move |(phone, cents)| {
            let mut findings = of_charges.borrow_mut();
            findings.calls += 1;
            *findings.bills.entry(phone.clone()).or_default() += cents;
        });
        let notices = egresses.stream(NOTICES).expect("NOTICES is bound");
        notices.exchange(|_| 0).inspect_time(move |day, notice| {
            if of_notices.borrow_mut().notices.insert(notice.clone()) {
                println!("{notice} on day {day}");
            }
        });
        (input, egresses.handle())
    });

    if worker.index() == 0 {
        let mut first = None;
        for line in text.lines() {
            if let Some(call) = parse(line) {
                let day = call.start / SECONDS_OF_A_DAY;
                let day = day - *first.get_or_insert(day);
                if day > *input.time() {
                    input.advance_to(day);
                    handle.until_ready(worker)?;
                }
            }
            input.send(line.to_owned());
        }
    }
    input.close();
    handle.run(worker)?;
    Ok((worker.index() == 0).then(|| findings.take()))
}

/// The same without streams and functions.
pub fn expected(text: &str) -> Findings {
    let mut findings = Findings::default();
    let mut used = BTreeMap::<String, u64>::new();
    for call in text.lines().filter_map(parse).filter(|call| call.seconds >= LEAST_SECONDS) {
        findings.calls += 1;
        *used.entry(call.caller).or_default() += call.seconds as u64;
    }
    for (phone, used) in used {
        let owed = used.saturating_sub(FREE_SECONDS as u64);
        if owed > 0 {
            findings.notices.insert(format!("phone {phone}: the free hours are used up"));
        }
        findings.bills.insert(phone, owed);
    }
    findings
}

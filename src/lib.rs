//! Stateful functions on timely dataflow.
//!
//! A program turns timely streams into messages for *addresses*, each a function type and an id.
//! Functions handle the messages one at a time per address, keep state there, send messages to each
//! other in any pattern, and emit records to *egresses*, which are timely streams again. Everything
//! happens in the program's own workers and processes.
//!
//! This page introduces things in the order in which a program meets them:
//!
//! 1. [Functions and messages](#functions-and-messages)
//! 2. [State](#state)
//! 3. [Egress](#egress)
//! 4. [Running on several workers](#running-on-several-workers)
//! 5. [Several kinds of message](#several-kinds-of-message)
//! 6. [Time and completeness](#time-and-completeness)
//! 7. [Order](#order)
//! 8. [Failures, dead letters and stopping](#failures-dead-letters-and-stopping)
//! 9. [Several ingresses](#several-ingresses), [namespaces](#namespaces) and
//!    [sets of functions](#sets-of-functions)
//! 10. [Egress as a differential collection](#egress-as-a-differential-collection)
//! 11. [Limits and pushing back](#limits-and-pushing-back)
//! 12. [What is exact and what is not](#what-is-exact-and-what-is-not)
//!
//! # Functions and messages
//!
//! A [`FunctionType`] is a constant: a name, and the type of the messages that such functions take.
//! With an [`Id`] it makes an [`Address`], and with a message an [`Envelope`].
//!
//! ```
//! use timely_statefun::{Envelope, FunctionType, Id};
//!
//! const PERSON: FunctionType<String> = FunctionType::new("example/person");
//!
//! let envelope: Envelope<String> = PERSON.message("Ada", "hello".to_owned());
//! assert_eq!(envelope.target, PERSON.at("Ada"));
//! assert_eq!(envelope.caller, None);
//!
//! // An id is its bytes: a number and its decimal form are one id.
//! assert_eq!(PERSON.at(7), PERSON.at("7"));
//! assert_ne!(Id::new("7"), Id::new("007"));
//! ```
//!
//! A [`Function`] is a closure over a [`Context`] and the message. [`Functions`] says which function
//! handles which type. Mistakes made there are kept and come back as an [`Error`], before anything is
//! built:
//!
//! ```
//! use timely_statefun::{Function, Functions, FunctionType};
//!
//! const PERSON: FunctionType<String> = FunctionType::new("example/person");
//!
//! let twice: Functions<String> = Functions::new()
//!     .embedded(PERSON, Function::new(|_, _: &String| Ok(())))
//!     .embedded(PERSON, Function::new(|_, _: &String| Ok(())));
//! let error = twice.check().unwrap_err();
//! assert!(error.is_duplicate_function());
//! assert_eq!(error.to_string(), "function type \"example/person\" is bound twice");
//! ```
//!
//! # State
//!
//! What a function keeps for each address is declared with constants, each of which has a name and a
//! type:
//!
//! * A [`ValueSpec`] is one value. The [`Context`] reads it, sets it, clears it, and
//!   [updates](Context::update) it from its default.
//! * A [`TableSpec`] is a map. A [`Table`] reads and writes each entry by itself, at a price that does
//!   not depend on how many there are.
//! * A [`BufferSpec`] is a sequence that a [`Buffer`] appends to.
//!
//! Each of them may say with an [`Expiration`] how long it lives after it was last written, or used:
//! a value, an entry of a table, an element of a buffer. What has expired is not seen again, and gives
//! its memory back although nobody touches it. An address that keeps nothing takes no memory.
//!
//! ```
//! use std::time::Duration;
//! use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
//! use timely_statefun::{BufferSpec, Egress, Expiration, Function, Functions, FunctionType};
//! use timely_statefun::{StatefulFunctions, TableSpec, ValueSpec};
//!
//! /// Takes the amounts that were bought of some thing.
//! const SHOP: FunctionType<(String, u64)> = FunctionType::new("example/shop");
//! const SOLD: ValueSpec<u64> = ValueSpec::new("sold");
//! const SOLD_OF: TableSpec<String, u64> = TableSpec::new("sold-of");
//! /// What was sold of late.
//! const LATEST: BufferSpec<String> = BufferSpec::new("latest")
//!     .expiring(Expiration::after_write(Duration::from_secs(24 * 60 * 60)));
//! const REPORTS: Egress<String> = Egress::new("example/reports");
//!
//! let reports = timely::example(|scope| {
//!     let shop = Function::new(|context, (thing, amount): &(String, u64)| {
//!         let sold = context.update(SOLD, |sold| *sold += amount);
//!         let sold_of = context.table(SOLD_OF).update(thing.clone(), |sold| *sold += amount);
//!         let mut latest = context.buffer(LATEST);
//!         latest.append(thing.clone());
//!         let latest: Vec<_> = latest.iter().map(String::as_str).collect();
//!         let report = format!("{sold_of} of {sold} pieces are {thing}; today {}", latest.join(", "));
//!         context.emit(REPORTS, report);
//!         Ok(())
//!     });
//!     let shop = shop.value(SOLD).table(SOLD_OF).buffer(LATEST);
//!     let functions: Functions<(String, u64)> = Functions::new().embedded(SHOP, shop).egress(REPORTS);
//!     let bought = [("tea", 2), ("cups", 1), ("tea", 3)];
//!     let bought = bought.map(|(thing, amount)| SHOP.message("here", (thing.to_owned(), amount)));
//!     let egresses = bought.to_stream(scope).stateful_functions(functions).unwrap();
//!     egresses.stream(REPORTS).unwrap().capture()
//! });
//! let reports: Vec<String> = reports.extract().remove(0).1;
//! assert!(reports.contains(&"5 of 6 pieces are tea; today tea, cups, tea".to_owned()));
//! ```
//!
//! Where names appear at run time, as those of rules or tenants do, a function has a
//! [registry](Function::registry) for state that it does not declare.
//!
//! State is one of the three things an invocation does; the others are to send and to emit. They take
//! effect together when the function returns `Ok`, and not at all otherwise.
//!
//! # Egress
//!
//! An [`Egress`] is a constant too: a name and the type of its records. It is bound beside the
//! functions, and taken as a stream from what
//! [`stateful_functions`](StatefulFunctions::stateful_functions) returns.
//!
//! ```
//! use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
//! use timely_statefun::{Egress, Function, Functions, FunctionType, StatefulFunctions, ValueSpec};
//!
//! const COUNTER: FunctionType<u64> = FunctionType::new("example/counter");
//! const TOTAL: ValueSpec<u64> = ValueSpec::new("total");
//! const TOTALS: Egress<(String, u64)> = Egress::new("example/totals");
//!
//! fn functions() -> Functions<u64> {
//!     let counter = Function::new(|context, amount: &u64| {
//!         let total = context.update(TOTAL, |total| *total += amount);
//!         context.emit(TOTALS, (context.id().to_string(), total));
//!         Ok(())
//!     });
//!     Functions::new().embedded(COUNTER, counter.value(TOTAL)).egress(TOTALS)
//! }
//!
//! let totals = timely::example(|scope| {
//!     let amounts = [COUNTER.message("a", 3), COUNTER.message("b", 1), COUNTER.message("a", 4)];
//!     let egresses = amounts.to_stream(scope).stateful_functions(functions()).unwrap();
//!     egresses.stream(TOTALS).unwrap().capture()
//! });
//! // `extract` sorts what it gathered by time, and what is of one time by itself.
//! let (_time, totals) = totals.extract().remove(0);
//! assert_eq!(totals, [("a".into(), 3), ("a".into(), 7), ("b".into(), 1)]);
//! ```
//!
//! # Running on several workers
//!
//! Every worker builds the same functions; each handles the addresses that live on it. An address is
//! placed by its id alone, so that all functions of one entity are on one worker, and messages
//! between them stay there. [`Handle::run`](Handle) steps the worker until everything is over.
//!
//! ```
//! use timely::dataflow::operators::Input;
//! use timely_statefun::{Envelope, Function, Functions, FunctionType, StatefulFunctions, ValueSpec};
//!
//! const COUNTER: FunctionType<u64> = FunctionType::new("example/counter");
//! const TOTAL: ValueSpec<u64> = ValueSpec::new("total");
//!
//! // A program passes `std::env::args()`: `-w` is the number of workers, and `-n`, `-p` and `-h` say
//! // that there are several processes.
//! let arguments = ["program", "-w", "2"].map(str::to_owned).into_iter();
//! let workers = timely::execute_from_args(arguments, |worker| {
//!     let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
//!         let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
//!         let counter = Function::new(|context, amount: &u64| {
//!             context.update(TOTAL, |total| *total += amount);
//!             Ok(())
//!         });
//!         let functions = Functions::new().embedded(COUNTER, counter.value(TOTAL));
//!         let egresses = stream.stateful_functions(functions).expect("bound once");
//!         (input, egresses.handle())
//!     });
//!     // Each worker may send to any address.
//!     for id in 0..100 {
//!         input.send(COUNTER.message(id, 1));
//!     }
//!     input.close();
//!     handle.run(worker).expect("counting does not fail");
//!     handle.stats().handled
//! });
//! let handled = workers.unwrap().join().into_iter().map(|handled| handled.unwrap());
//! assert_eq!(handled.sum::<u64>(), 2 * 100);
//! ```
//!
//! # Several kinds of message
//!
//! A program has one message type, so that whatever travels between workers has one form. Where
//! functions take different types, it is an enum that [`Carries`] each of them, which [`messages!`]
//! writes; what a function gets and sends is still its own type, checked when the program is compiled.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
//! use timely_statefun::{Egress, Envelope, Function, Functions, FunctionType, StatefulFunctions};
//! use timely_statefun::ValueSpec;
//!
//! #[derive(Clone, Debug, Serialize, Deserialize)]
//! struct Deposit(u64);
//! /// The account to move money to, and how much.
//! #[derive(Clone, Debug, Serialize, Deserialize)]
//! struct Transfer(String, u64);
//!
//! timely_statefun::messages! {
//!     #[derive(Clone, Debug, Serialize, Deserialize)]
//!     enum Message {
//!         Deposit(Deposit),
//!         Transfer(Transfer),
//!     }
//! }
//!
//! const ACCOUNT: FunctionType<Deposit> = FunctionType::new("bank/account");
//! const TELLER: FunctionType<Transfer> = FunctionType::new("bank/teller");
//! const BALANCE: ValueSpec<u64> = ValueSpec::new("balance");
//! const BALANCES: Egress<(String, u64)> = Egress::new("bank/balances");
//!
//! let balances = timely::example(|scope| {
//!     let account = Function::new(|context, Deposit(amount): &Deposit| {
//!         let balance = context.update(BALANCE, |balance| *balance += amount);
//!         context.emit(BALANCES, (context.id().to_string(), balance));
//!         Ok(())
//!     });
//!     // A teller has no state. It knows who asked, through `caller`, and could `reply`.
//!     let teller = Function::new(|context, Transfer(to, amount): &Transfer| {
//!         context.send(ACCOUNT, to, Deposit(*amount));
//!         Ok(())
//!     });
//!     let functions: Functions<Message> = Functions::new()
//!         .embedded(ACCOUNT, account.value(BALANCE))
//!         .embedded(TELLER, teller)
//!         .egress(BALANCES);
//!     let ingress: [Envelope<Message>; 2] = [
//!         ACCOUNT.message("ada", Deposit(5)),
//!         TELLER.message("first", Transfer("ada".to_owned(), 2)),
//!     ];
//!     let egresses = ingress.to_stream(scope).stateful_functions(functions).unwrap();
//!     egresses.stream(BALANCES).unwrap().capture()
//! });
//! assert_eq!(balances.extract()[0].1, [("ada".into(), 5), ("ada".into(), 7)]);
//! ```
//!
//! Functions that come with a message type of their own join a program's through one more variant;
//! [`messages!`] says how.
//!
//! # Time and completeness
//!
//! Everything that an ingress record at time `t` causes, directly or through any number of messages,
//! is emitted at `t`. When the frontier of an egress passes `t`, every consequence of every ingress
//! record up to `t` has happened, on all workers. `T` may be any timely timestamp, partially ordered
//! ones included; functions are generic in it through `Functions<M, T>`, whose default is `u64`.
//!
//! ```
//! use timely::dataflow::operators::{Inspect, Input, Probe};
//! use timely_statefun::{Egress, Envelope, Function, Functions, FunctionType, StatefulFunctions};
//! use std::{cell::RefCell, rc::Rc};
//!
//! const COUNTDOWN: FunctionType<u64> = FunctionType::new("example/countdown");
//! const LANDED: Egress<u64> = Egress::new("example/landed");
//!
//! timely::execute_directly(|worker| {
//!     let landed = Rc::new(RefCell::new(Vec::new()));
//!     let seen = Rc::clone(&landed);
//!     let (mut input, probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
//!         let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
//!         // Passes what is left on to the next address, and so on, until nothing is.
//!         let countdown = Function::new(|context, left: &u64| {
//!             match left {
//!                 0 => context.emit(LANDED, *context.time()),
//!                 _ => context.send(COUNTDOWN, *left, left - 1),
//!             }
//!             Ok(())
//!         });
//!         let functions = Functions::new().embedded(COUNTDOWN, countdown).egress(LANDED);
//!         let egresses = stream.stateful_functions(functions).unwrap();
//!         let stream = egresses.stream(LANDED).unwrap();
//!         let seen = stream.inspect_time(move |at, time| seen.borrow_mut().push((*at, *time)));
//!         (input, seen.probe().0, egresses.handle())
//!     });
//!     input.send(COUNTDOWN.message("start", 10_000));
//!     input.advance_to(1);
//!     input.send(COUNTDOWN.message("start", 10));
//!     input.advance_to(2);
//!     // Once the frontier has passed 0, the long chain that began at 0 is over.
//!     handle.run_while(worker, || probe.less_equal(&0)).unwrap();
//!     assert!(landed.borrow().contains(&(0, 0)));
//!     input.close();
//!     handle.run(worker).unwrap();
//!     landed.borrow_mut().sort();
//!     assert_eq!(*landed.borrow(), [(0, 0), (1, 1)]);
//! });
//! ```
//!
//! A function sees the time of its message with [`Context::time`], and with [`Context::frontier`] what
//! ingress can still bring. Messages are handled in the order of their arrival, not of their times: a
//! message of a later time may well be handled before one of an earlier time.
//!
//! # Order
//!
//! Messages from one address to another arrive in the order in which they were sent. An address
//! handles one message at a time. Messages of different senders may arrive in any order, and so may
//! ingress records that were sent by different workers or came through different ingresses; records
//! that one worker sends into one ingress keep their order for each address. An egress keeps, for each
//! worker, the order in which its records were emitted.
//!
//! ```
//! use timely::dataflow::operators::{Inspect, ToStream};
//! use timely_statefun::{Egress, Function, Functions, FunctionType, StatefulFunctions};
//! use std::sync::{Arc, Mutex};
//!
//! const SENDER: FunctionType<u64> = FunctionType::new("example/sender");
//! const RECEIVER: FunctionType<u64> = FunctionType::new("example/receiver");
//! const RECEIVED: Egress<u64> = Egress::new("example/received");
//!
//! let received = Arc::new(Mutex::new(Vec::new()));
//! let seen = Arc::clone(&received);
//! timely::example(move |scope| {
//!     let sender = Function::new(|context, count: &u64| {
//!         (0..*count).for_each(|number| context.send(RECEIVER, "only", number));
//!         Ok(())
//!     });
//!     let receiver = Function::new(|context, number: &u64| {
//!         context.emit(RECEIVED, *number);
//!         Ok(())
//!     });
//!     let functions: Functions<u64> = Functions::new()
//!         .embedded(SENDER, sender)
//!         .embedded(RECEIVER, receiver)
//!         .egress(RECEIVED);
//!     let start = [SENDER.message("only", 1000)];
//!     let egresses = start.to_stream(scope).stateful_functions(functions).unwrap();
//!     let stream = egresses.stream(RECEIVED).unwrap();
//!     stream.inspect(move |number| seen.lock().unwrap().push(*number));
//! });
//! assert!(received.lock().unwrap().iter().copied().eq(0..1000));
//! ```
//!
//! # Failures, dead letters and stopping
//!
//! A function fails when it returns an error, panics, or uses a state or an egress in a way that does
//! not fit its declaration. Nothing it did takes effect then. What happens next is
//! [the function's policy](Function::on_failure):
//!
//! * [`OnFailure::DeadLetter`]: the message becomes a [`DeadLetter`], a record with the [`Reason`], at
//!   the message's own time. Messages nobody is bound for become dead letters as well. A program
//!   reads them as a [stream](Egresses::dead_letters); while nobody does, they are reported as warnings
//!   through `tracing`.
//! * [`OnFailure::Stop`], the default: the dataflow stops on all workers, and the handle's `run` returns
//!   [`Stopped`], with the address, the reason and the worker. No frontier passes the time of the
//!   message that failed, neither then nor when the dataflow is dropped. What was emitted before
//!   that has left; how much other workers did meanwhile is not said.
//!
//! ```
//! use timely::dataflow::operators::vec::Map;
//! use timely::dataflow::operators::{Capture, Input, Probe, capture::Extract};
//! use timely_statefun::{Egress, Envelope, Function, Functions, FunctionType, OnFailure, Reason};
//! use timely_statefun::{StatefulFunctions, ValueSpec};
//!
//! const ACCOUNT: FunctionType<i64> = FunctionType::new("bank/account");
//! const AUDIT: FunctionType<i64> = FunctionType::new("bank/audit");
//! const BALANCE: ValueSpec<i64> = ValueSpec::new("balance");
//! const BALANCES: Egress<i64> = Egress::new("bank/balances");
//!
//! fn functions() -> Functions<i64> {
//!     let account = Function::new(|context, change: &i64| {
//!         let balance = context.update(BALANCE, |balance| *balance += change);
//!         context.emit(BALANCES, balance);
//!         if balance < 0 {
//!             return Err("overdrawn".into()); // Neither the change nor the record happens.
//!         }
//!         Ok(())
//!     });
//!     let audit = Function::new(|_, _: &i64| Err("the books are wrong".into()));
//!     Functions::new()
//!         .embedded(ACCOUNT, account.value(BALANCE).on_failure(OnFailure::DeadLetter))
//!         .embedded(AUDIT, audit)
//!         .egress(BALANCES)
//! }
//!
//! let (balances, letters) = timely::execute_directly(|worker| {
//!     let (mut input, balances, letters, probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
//!         let (input, stream) = scope.new_input::<Vec<Envelope<i64>>>();
//!         let egresses = stream.stateful_functions(functions()).unwrap();
//!         let (probe, balances) = egresses.stream(BALANCES).unwrap().probe();
//!         let letters = egresses.dead_letters().unwrap();
//!         let letters = letters.map(|letter| (letter.message, letter.reason.to_string()));
//!         (input, balances.capture(), letters.capture(), probe, egresses.handle())
//!     });
//!     for change in [5, -7, -2] {
//!         input.send(ACCOUNT.message("ada", change));
//!     }
//!     input.advance_to(1);
//!     handle.run_while(worker, || probe.less_than(&1)).unwrap();
//!     input.send(AUDIT.message("books", 0));
//!     input.close();
//!     let stopped = handle.run(worker).unwrap_err();
//!     assert_eq!(stopped.address, AUDIT.at("books"));
//!     assert_eq!(stopped.reason, Reason::Failed("the books are wrong".to_owned()));
//!     assert!(probe.less_equal(&1), "what was to happen at 1 did not");
//!     (balances, letters)
//! });
//! let balances = balances.extract().into_iter().flat_map(|(_, balances)| balances);
//! assert!(balances.eq([3, 5]));
//! let letters = letters.extract().remove(0).1;
//! assert_eq!(letters, [(-7, "the function failed: overdrawn".to_owned())]);
//! ```
//!
//! A program that does not call [`run`](Handle) or `run_while` asks `stopped` itself, and drops the
//! dataflow when it says so.
//!
//! # Several ingresses
//!
//! Several streams of messages are given as an array or a vector. Each has a gate of its own, and its
//! own order. The functions' frontier is that of all of them together.
//!
//! # Namespaces
//!
//! A [`Namespace`] binds one function to all types of a namespace that are not bound by themselves.
//! The types need not be known beforehand, and each keeps state of its own. Messages between functions
//! of such types are sent with [`Context::forward`].
//!
//! ```
//! use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
//! use timely_statefun::{Egress, Function, Functions, FunctionType, Namespace, StatefulFunctions};
//! use timely_statefun::ValueSpec;
//!
//! const RULES: Namespace<u64> = Namespace::new("rules");
//! const CATCH_ALL: FunctionType<u64> = FunctionType::new("rules/none");
//! const HITS: ValueSpec<u64> = ValueSpec::new("hits");
//! const LOG: Egress<String> = Egress::new("example/log");
//!
//! let log = timely::example(|scope| {
//!     let rule = Function::new(|context, _: &u64| {
//!         let hits = context.update(HITS, |hits| *hits += 1);
//!         context.emit(LOG, format!("{}: {hits}", context.address()));
//!         Ok(())
//!     });
//!     let nothing = Function::new(|_, _: &u64| Ok(()));
//!     let functions: Functions<u64> = Functions::new()
//!         .embedded_namespace(RULES, rule.value(HITS))
//!         .embedded(CATCH_ALL, nothing)
//!         .egress(LOG);
//!     let by_name = ["speed", "speed", "weight", "none"];
//!     let by_name = by_name.map(|rule| RULES.message(rule, "car", 0).unwrap()).to_stream(scope);
//!     let typed = [CATCH_ALL.message("car", 0)].to_stream(scope);
//!     let egresses = [by_name, typed].stateful_functions(functions).unwrap();
//!     egresses.stream(LOG).unwrap().capture()
//! });
//! let expected = ["rules/speed car: 1", "rules/speed car: 2", "rules/weight car: 1"];
//! assert_eq!(log.extract()[0].1, expected);
//! ```
//!
//! # Sets of functions
//!
//! A dataflow may hold several sets of functions, each with its own message type, limits and
//! [name](Functions::named). What leaves one is a stream, which becomes the ingress of another. Where
//! all of them run in one dataflow, a single call to `run` completes them; a stop is reported by the
//! handle of the set it happened in.
//!
//! ```
//! use timely::dataflow::operators::vec::Map;
//! use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
//! use timely_statefun::{Egress, Function, Functions, FunctionType, StatefulFunctions, ValueSpec};
//!
//! const SPLIT: FunctionType<String> = FunctionType::new("text/split");
//! const WORDS: Egress<String> = Egress::new("text/words");
//! const WORD: FunctionType<()> = FunctionType::new("count/word");
//! const SEEN: ValueSpec<u64> = ValueSpec::new("seen");
//! const COUNTS: Egress<(String, u64)> = Egress::new("count/counts");
//!
//! let counts = timely::example(|scope| {
//!     let split = Function::new(|context, line: &String| {
//!         line.split(' ').for_each(|word| context.emit(WORDS, word.to_owned()));
//!         Ok(())
//!     });
//!     let text = Functions::<String>::new().named("text");
//!     let text = text.embedded(SPLIT, split).egress(WORDS);
//!     let word = Function::new(|context, _: &()| {
//!         let seen = context.update(SEEN, |seen| *seen += 1);
//!         context.emit(COUNTS, (context.id().to_string(), seen));
//!         Ok(())
//!     });
//!     let count = Functions::<()>::new().named("count");
//!     let count = count.embedded(WORD, word.value(SEEN)).egress(COUNTS);
//!
//!     let lines = [SPLIT.message("line 1", "to be or not to be".to_owned())].to_stream(scope);
//!     let words = lines.stateful_functions(text).unwrap().stream(WORDS).unwrap();
//!     let words = words.map(|word| WORD.message(word, ()));
//!     words.stateful_functions(count).unwrap().stream(COUNTS).unwrap().capture()
//! });
//! let counts = counts.extract().into_iter().flat_map(|(_, counts)| counts);
//! let counts: Vec<_> = counts.map(|(word, count)| format!("{word} {count}")).collect();
//! assert_eq!(counts, ["be 1", "be 2", "not 1", "or 1", "to 1", "to 2"]);
//! ```
//!
//! # Egress as a differential collection
//!
//! An egress of changes becomes a [differential](differential_dataflow) collection, which can be
//! joined, reduced and iterated like any other. [`Egresses::collection`] takes `(data, difference)`
//! and puts each change at its message's time: right for whatever only adds up.
//!
//! A change that *replaces* something must not come before the change that made it, and messages are
//! handled in the order of their arrival. [`Egresses::updates`] takes `(data, time, difference)`: the
//! function keeps the time of its last change, and gives the next one the join of that and its
//! message's time. At every time there is then at most one value per address, and in the end the right
//! one. It is not "the state after all ingress up to that time": that would need messages to be handled
//! in the order of their times.
//!
//! ```
//! use differential_dataflow::lattice::Lattice;
//! use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
//! use timely_statefun::{Egress, Function, Functions, FunctionType, StatefulFunctions, ValueSpec};
//!
//! const SENSOR: FunctionType<u64> = FunctionType::new("example/sensor");
//! /// What the sensor last said, and since when that counts.
//! const LAST: ValueSpec<(u64, u64)> = ValueSpec::typed("last", "example/reading");
//! const READINGS: Egress<(String, isize)> = Egress::new("example/readings");
//! const CURRENT: Egress<((String, u64), u64, isize)> = Egress::new("example/current");
//!
//! let (readings, current) = timely::example(|scope| {
//!     let sensor = Function::new(|context, reading: &u64| {
//!         let sensor = context.id().to_string();
//!         context.emit(READINGS, (sensor.clone(), 1));
//!         let mut time: u64 = *context.time();
//!         if let Some((before, since)) = context.get(LAST).copied() {
//!             time = time.join(&since);
//!             context.emit(CURRENT, ((sensor.clone(), before), time, -1));
//!         }
//!         context.emit(CURRENT, ((sensor, *reading), time, 1));
//!         context.set(LAST, (*reading, time));
//!         Ok(())
//!     });
//!     let functions: Functions<u64> = Functions::new()
//!         .embedded(SENSOR, sensor.value(LAST))
//!         .egress(READINGS)
//!         .egress(CURRENT);
//!     let readings = [20, 21, 19].map(|reading| SENSOR.message("roof", reading));
//!     let egresses = readings.to_stream(scope).stateful_functions(functions).unwrap();
//!     let readings = egresses.collection(READINGS).unwrap().consolidate();
//!     let current = egresses.updates(CURRENT).unwrap().consolidate();
//!     (readings.inner.capture(), current.inner.capture())
//! });
//! assert_eq!(readings.extract()[0].1, [("roof".to_owned(), 0, 3)]);
//! assert_eq!(current.extract()[0].1, [(("roof".to_owned(), 19), 0, 1)]);
//! ```
//!
//! # Limits and pushing back
//!
//! Every queue has a [limit](Limits). A cycle must never block itself, so messages that functions send
//! are always taken; what can be held back is ingress, at the gate it enters through. A gate holds
//! records back while it has more than [`gate_credit_records`](Limits::gate_credit_records) let in and
//! not yet handled, or while more than [`loop_bytes_soft`](Limits::loop_bytes_soft) wait on some
//! worker. Above [`loop_bytes_hard`](Limits::loop_bytes_hard), messages that functions send are given
//! up, as [`when_full`](Limits::when_full) says: the default stops the dataflow.
//!
//! What a gate holds back is in memory, and a gate cannot stop the source in front of it. The program
//! can: it sends only while its handle is `ready`. `admitted` is a probe on what the gates let in, for
//! sources that follow a frontier.
//!
//! ```
//! use timely::dataflow::operators::Input;
//! use timely_statefun::{Envelope, Function, Functions, FunctionType, Limits, StatefulFunctions};
//!
//! const SINK: FunctionType<u64> = FunctionType::new("example/sink");
//!
//! timely::execute_directly(|worker| {
//!     let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
//!         let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
//!         let limits = Limits { gate_credit_records: 10, ..Limits::default() };
//!         let sink = Function::new(|_, _: &u64| Ok(()));
//!         let functions = Functions::new().embedded(SINK, sink).limits(limits);
//!         (input, stream.stateful_functions(functions).unwrap().handle())
//!     });
//!     for batch in 0..100u64 {
//!         handle.until_ready(worker).unwrap();
//!         (0..25).for_each(|id| input.send(SINK.message(id, batch)));
//!         input.advance_to(batch + 1);
//!     }
//!     handle.run_while(worker, || handle.admitted().less_than(&100)).unwrap();
//!     assert_eq!(handle.stats().admitted, 2500);
//!     input.close();
//!     handle.run(worker).unwrap();
//!     assert_eq!(handle.stats().handled, 2500);
//! });
//! ```
//!
//! # What is exact and what is not
//!
//! * Egress times and completeness are exact: no record leaves at another time than its cause's, and no
//!   frontier passes what has not happened, even if a program stops or a function panics.
//! * An invocation is all or nothing as far as state, messages and egress go. What else a function
//!   does, such as writing to a file or to something it captured, is its own affair.
//! * A function runs to completion on its worker. While one runs, nothing else does there, and one that
//!   never returns stops its worker for ever.
//! * A cascade that never ends holds its ingress time for ever: functions go on, later times are
//!   emitted, but no frontier passes that time. [`depth_max`](Limits::depth_max) bounds chains where
//!   that is a mistake.
//! * Clocks and random numbers that a function reads are not part of any promise. Functions that use
//!   neither still see messages of different senders in an order that may differ from run to run.
//! * All messages to one id are handled on one worker: one very busy id is as fast as one core.
//! * State and messages live in memory and end with the program.
//!
//! The operators below are of use without functions; they are the crate
//! [`timely-statefun-operators`](timely_statefun_operators).
#![doc(html_root_url = "https://docs.rs/timely-statefun")]

mod address;
mod buffer;
mod clock;
mod dataflow;
mod dead_letter;
mod dispatch;
mod egress;
mod endpoint;
mod error;
mod expiration;
mod function;
mod functions;
mod message;
mod messages;
mod placement;
mod remote;
mod retry;
mod runner;
mod state;
mod table;
mod typed;
mod value;

pub use address::{Address, FunctionType, Id, Namespace, TypeName};
pub use buffer::BufferSpec;
pub use clock::{Clock, ClockHands};
pub use dataflow::{Egresses, Handle, StatefulFunctions};
pub use dead_letter::{DeadLetter, OnFailure, Reason, Stopped};
pub use dispatch::{Buffer, Context, NoCaller, Outcome, Table, TokenInUse};
pub use egress::Egress;
pub use endpoint::Endpoint;
pub use error::Error;
pub use expiration::Expiration;
pub use function::{Function, FunctionResult};
pub use functions::{AtClose, Functions, Limits};
pub use message::{Carries, Envelope, Mismatch};
pub use placement::BINS;
pub use retry::Retry;
pub use table::TableSpec;
pub use timely_statefun_operators::{LoopStats, Order, STOP_GRACE_STEPS, STOP_STEPS};
pub use typed::{Typed, TypedMessage, TypedValue};
pub use value::{Named, Value, ValueSpec};

/// The README's code, compiled and run with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

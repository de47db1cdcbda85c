//! Remote functions that a test answers in the place of the network.
//!
//! What is asked is what a server would be sent, byte for byte, and what is answered goes the way of an answer
//! over HTTP: retries, limits and policies are those of the program.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use timely::progress::Timestamp;
use timely_statefun_proto::reqreply::to_function::{self, InvocationBatchRequest};
use timely_statefun_proto::reqreply::{self, FromFunction, ToFunction};
use timely_statefun_proto::{BuiltIn, Message};
use tokio::sync::oneshot::{Receiver, Sender, channel};

use crate::address::{Address, Id, TypeName};
use crate::call_error::CallError;
use crate::dispatch::panic_message;
use crate::functions::Functions;
use crate::remote::{Answered, Answers};

const OCTETS: &str = "application/octet-stream";

type Response = Result<http::Response<Bytes>, CallError>;
type Serve = Arc<dyn Fn(&ToFunction) -> FromFunction + Send + Sync>;

/// Answers the remote functions of a [`TestProgram`](super::TestProgram), in the place of the network. All
/// clones are one.
///
/// A test takes the requests that are open and answers each by hand, or fails it, or leaves it open until the
/// call has no more time; or it [serves](Self::serve) them with a function.
///
/// ```
/// use timely_statefun::testing::TestProgram;
/// use timely_statefun::{Egress, Endpoint, FunctionType, Functions, TypedValue};
/// use timely_statefun_proto::reqreply::from_function::{
///     EgressMessage, InvocationResponse, Response,
/// };
/// use timely_statefun_proto::reqreply::{self, FromFunction};
///
/// const GREETER: FunctionType<String> = FunctionType::new("example/greeter");
/// const GREETINGS: Egress<String> = Egress::new("example/greetings");
///
/// let mut program = TestProgram::new(|| {
///     let greeter = Endpoint::at("http://greeters.example/");
///     Functions::<TypedValue>::new().remote(GREETER, greeter).typed_egress(GREETINGS)
/// });
/// let endpoint = program.endpoint();
/// program.send(GREETER.message("ann", "Ann".to_owned()));
/// program.advance_to(1);
/// program.run();
///
/// let request = endpoint.expect_request();
/// assert_eq!(request.target(), GREETER.at("ann"));
/// assert_eq!(request.arguments::<String>(), ["Ann"]);
/// // Nothing has left yet at the time of the message, and the frontier says so.
/// assert_eq!(program.frontier(), [0]);
/// let greeting = EgressMessage {
///     egress_namespace: "example".to_owned(),
///     egress_type: "greetings".to_owned(),
///     argument: Some(reqreply::TypedValue::of(&"Hello, Ann".to_owned())),
/// };
/// let result = InvocationResponse { outgoing_egresses: vec![greeting], ..Default::default() };
/// request.answer(FromFunction { response: Some(Response::InvocationResult(result)) });
/// program.run();
/// assert_eq!(program.frontier(), [1]);
/// assert_eq!(program.take(GREETINGS), [(0, "Hello, Ann".to_owned())]);
/// ```
#[derive(Clone, Default)]
pub struct TestEndpoint {
    inner: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Counts the times that the program was started.
    execution: u64,
    /// Counts requests.
    next: u64,
    /// Those that nobody has answered, taken or not.
    open: BTreeSet<u64>,
    /// Those that nobody has taken, oldest first.
    queue: VecDeque<Queued>,
    serve: Option<Serve>,
    /// What a function that serves said when it panicked, until the test is told.
    panicked: Option<String>,
}

struct Queued {
    number: u64,
    url: String,
    body: Bytes,
    reply: Sender<Response>,
}

impl TestEndpoint {
    /// One for [functions](Functions::answered_by) in a dataflow of the test's own.
    /// [`TestProgram::endpoint`](super::TestProgram::endpoint) gives that of a program.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the oldest request that is open and that nobody has taken yet.
    ///
    /// # Panics
    ///
    /// If there is none: the program was not [run](super::TestProgram::run), or has asked nobody.
    #[track_caller]
    pub fn expect_request(&self) -> TestRequest {
        self.take_request().expect("no request is open that was not taken")
    }

    /// Takes the request for an address that is open. There is never more than one.
    ///
    /// # Panics
    ///
    /// If there is none, or it was taken.
    #[track_caller]
    pub fn expect_request_to(&self, target: &Address) -> TestRequest {
        let of = |queued: &Queued| address(&decoded(&queued.body)) == *target;
        match self.take(of) {
            Some(request) => request,
            None => panic!("no request to \"{target}\" is open that was not taken"),
        }
    }

    /// The same as [`expect_request`](Self::expect_request) where there may be none.
    pub fn take_request(&self) -> Option<TestRequest> {
        self.take(|_| true)
    }

    fn take(&self, of: impl Fn(&Queued) -> bool) -> Option<TestRequest> {
        let mut state = self.state();
        let at = state.queue.iter().position(of)?;
        let Queued { number, url, body, reply } = state.queue.remove(at)?;
        let (endpoint, message) = (self.clone(), decoded(&body));
        Some(TestRequest { endpoint, number, url, body, message, reply: Some(reply) })
    }

    /// How many requests are open: nobody has answered them, and the program waits for them. Those that were
    /// taken are among them.
    pub fn open(&self) -> usize {
        self.state().open.len()
    }

    /// How many requests there were, over all restarts of the program. Each attempt is one.
    pub fn requests(&self) -> u64 {
        self.state().next
    }

    /// Answers every request from now on with a function, at once. Requests that are open stay so.
    ///
    /// ```
    /// use timely_statefun::testing::TestProgram;
    /// use timely_statefun::{Endpoint, FunctionType, Functions, TypedValue};
    /// use timely_statefun_proto::reqreply::FromFunction;
    ///
    /// const GREETER: FunctionType<String> = FunctionType::new("example/greeter");
    ///
    /// let mut program = TestProgram::new(|| {
    ///     Functions::<TypedValue>::new().remote(GREETER, Endpoint::at("http://greeters.example/"))
    /// });
    /// let endpoint = program.endpoint();
    /// endpoint.serve(|_| FromFunction::default());
    /// program.send(GREETER.message("ann", "Ann".to_owned()));
    /// program.close();
    /// program.run();
    /// assert_eq!((endpoint.requests(), program.frontier()), (1, vec![]));
    /// ```
    pub fn serve(&self, serve: impl Fn(&ToFunction) -> FromFunction + Send + Sync + 'static) {
        self.state().serve = Some(Arc::new(serve));
    }

    /// Leaves requests from now on to be answered by hand.
    pub fn stop_serving(&self) {
        self.state().serve = None;
    }

    /// Takes what a function that serves said when it panicked.
    pub(super) fn take_panic(&self) -> Option<String> {
        self.state().panicked.take()
    }

    /// Who answers a program that is being started. One that was started before is not answered any more.
    pub(super) fn begin(&self) -> Arc<dyn Answers> {
        let mut state = self.state();
        state.execution += 1;
        state.open.clear();
        state.queue.clear();
        drop(state);
        self.line()
    }

    /// Who answers whoever was started last.
    fn line(&self) -> Arc<dyn Answers> {
        Arc::new(Line { endpoint: self.clone(), execution: self.state().execution })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, number: u64) {
        let mut state = self.state();
        state.open.remove(&number);
        state.queue.retain(|queued| queued.number != number);
    }
}

impl fmt::Debug for TestEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let (requests, open) = (state.next, state.open.len());
        let mut shown = f.debug_struct("TestEndpoint");
        shown.field("requests", &requests).field("open", &open).finish_non_exhaustive()
    }
}

impl<M, T: Timestamp> Functions<M, T> {
    /// Has a test answer all remote functions, in the place of the network, where it builds the dataflow by itself.
    /// Several workers may share an endpoint.
    ///
    /// Calls run on the [runtime](Self::runtime) of these functions, and the time that they have is the runtime's: a
    /// test turns it where it has paused it.
    pub fn answered_by(mut self, endpoint: &TestEndpoint) -> Self {
        self.answers = Some(endpoint.line());
        self
    }
}

/// The endpoint, as a program between two crashes knows it.
struct Line {
    endpoint: TestEndpoint,
    execution: u64,
}

impl Answers for Line {
    fn answer(&self, url: &str, body: Bytes) -> Answered {
        let (endpoint, execution, url) = (self.endpoint.clone(), self.execution, url.to_owned());
        Box::pin(async move {
            let (reply, answer) = channel();
            let number = {
                let mut state = endpoint.state();
                if state.execution != execution {
                    return Err(lost());
                }
                state.next += 1;
                if let Some(serve) = state.serve.clone() {
                    drop(state);
                    let served = catch_unwind(AssertUnwindSafe(|| serve(&decoded(&body))));
                    return match served {
                        Ok(answer) => Ok(answered(&answer)),
                        Err(panic) => {
                            let text = panic_message(&*panic);
                            endpoint.state().panicked.get_or_insert(text);
                            Err(lost())
                        }
                    };
                }
                let number = state.next;
                state.open.insert(number);
                state.queue.push_back(Queued { number, url, body, reply });
                number
            };
            let mut open = Open { endpoint, number, answer };
            (&mut open.answer).await.unwrap_or_else(|_| Err(lost()))
        })
    }
}

/// A request while somebody waits for its answer.
struct Open {
    endpoint: TestEndpoint,
    number: u64,
    answer: Receiver<Response>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.endpoint.close(self.number);
    }
}

/// A request that is to be answered. The connection is lost when it is dropped without an answer.
pub struct TestRequest {
    endpoint: TestEndpoint,
    number: u64,
    url: String,
    body: Bytes,
    message: ToFunction,
    /// Gone when it was answered.
    reply: Option<Sender<Response>>,
}

impl TestRequest {
    /// Where it was sent to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its body, which is a [`ToFunction`] in bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What it says.
    pub fn message(&self) -> &ToFunction {
        &self.message
    }

    /// The messages that are to be handled, and the state that they find.
    pub fn batch(&self) -> &InvocationBatchRequest {
        batch(&self.message)
    }

    /// The address that is called.
    pub fn target(&self) -> Address {
        address(&self.message)
    }

    /// The messages that are to be handled, as values of one built-in type.
    ///
    /// # Panics
    ///
    /// If one is of another type.
    #[track_caller]
    pub fn arguments<V: BuiltIn>(&self) -> Vec<V> {
        let arguments = self.batch().invocations.iter().map(|invocation| &invocation.argument);
        arguments.map(|argument| read(argument.as_ref())).collect()
    }

    /// A state of the address: `None` if the program does not know of one of this name, `Some(None)` if it has
    /// no value.
    ///
    /// # Panics
    ///
    /// If its value is of another type.
    #[track_caller]
    pub fn state<V: BuiltIn>(&self, name: &str) -> Option<Option<V>> {
        let found = self.batch().state.iter().find(|state| state.state_name == name)?;
        let value = found.state_value.as_ref().filter(|value| value.has_value);
        Some(value.map(|value| read(Some(value))))
    }

    /// Whether somebody still waits for the answer. A call that has no more time, and a program that has
    /// crashed, do not.
    pub fn is_open(&self) -> bool {
        self.endpoint.state().open.contains(&self.number)
    }

    /// Answers with what a function did, or wants to know. It comes when the program is stepped.
    pub fn answer(self, answer: FromFunction) {
        self.reply(Ok(answered(&answer)));
    }

    /// Answers with any status, headers and bytes. An answer that succeeds has the header `content-type`, which
    /// is `application/octet-stream`.
    ///
    /// # Panics
    ///
    /// If the status or a header is none that HTTP knows.
    #[track_caller]
    pub fn answer_with(self, status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(body.into());
        self.reply(Ok(response.expect("the status and the headers are valid")));
    }

    /// Nobody was reached.
    pub fn refuse(self) {
        self.reply(Err(CallError::connect("the test refused the connection".to_owned())));
    }

    /// The connection is lost before there is an answer.
    pub fn lose(self) {
        self.reply(Err(lost()));
    }

    fn reply(mut self, response: Response) {
        if let Some(reply) = self.reply.take() {
            self.endpoint.close(self.number);
            // Whoever does not wait any more does not mind.
            let _ = reply.send(response);
        }
    }
}

impl Drop for TestRequest {
    fn drop(&mut self) {
        if self.reply.take().is_some() {
            self.endpoint.close(self.number);
        }
    }
}

impl fmt::Debug for TestRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TestRequest");
        shown.field("url", &self.url).field("message", &self.message).finish_non_exhaustive()
    }
}

fn lost() -> CallError {
    CallError::lost("the test lost the connection".to_owned())
}

fn answered(answer: &FromFunction) -> http::Response<Bytes> {
    let mut response = http::Response::new(answer.encode_to_vec().into());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(OCTETS));
    response
}

fn decoded(body: &Bytes) -> ToFunction {
    ToFunction::decode(body.clone()).expect("requests are well formed")
}

fn batch(message: &ToFunction) -> &InvocationBatchRequest {
    match &message.request {
        Some(to_function::Request::Invocation(batch)) => batch,
        None => panic!("a request is a batch: {message:?}"),
    }
}

fn address(message: &ToFunction) -> Address {
    let target = batch(message).target.as_ref().expect("a batch is for an address");
    let name = TypeName::new(&format!("{}/{}", target.namespace, target.r#type));
    Address { function_type: name.expect("its function is bound"), id: Id::new(&target.id) }
}

#[track_caller]
fn read<V: BuiltIn>(value: Option<&reqreply::TypedValue>) -> V {
    let value = value.expect("a message has a value");
    let typed = value.typed().expect("a message has a value");
    match typed.read() {
        Ok(value) => value,
        Err(error) => panic!("a value is not what was expected: {error}"),
    }
}

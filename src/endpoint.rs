//! Where a remote function is served, and how it is called.

use std::time::Duration;

use crate::dead_letter::OnFailure;

/// Where remote functions are served over HTTP, and how they are called.
///
/// What serves them speaks the StateFun 3.x protocol, as its SDKs for Python, Java, Go and JavaScript do.
/// `{function.name}` in the URL stands for the name of the function's type, without its namespace.
///
/// | option | default | in StateFun |
/// |---|---|---|
/// | [`call_timeout`](Self::call_timeout) | 2 min | 2 min (`call`) |
/// | [`connect_timeout`](Self::connect_timeout) | 20 s | 20 s (`connect`) |
/// | [`read_timeout`](Self::read_timeout) | 10 s | none; 10 s with OkHttp |
/// | [`batch_messages_max`](Self::batch_messages_max) | 1,000 | 1,000 (`maxNumBatchRequests`) |
/// | [`batch_bytes_max`](Self::batch_bytes_max) | 8 MiB | none |
/// | [`in_flight_max`](Self::in_flight_max) | 256 a worker | none for a function |
/// | [`connections_idle_max`](Self::connections_idle_max) | 1,024 | 1,024 (`pool_size`) |
/// | [`connection_idle`](Self::connection_idle) | 60 s | 15 s; 1 min with OkHttp |
/// | [`response_bytes_max`](Self::response_bytes_max) | 32 MiB | 32 MiB (`payload_max_bytes`) |
/// | [`retry_first`](Self::retry_first) | 10 ms | 4 ms; 10 ms with OkHttp |
/// | [`incomplete_max`](Self::incomplete_max) | 8 | no limit |
/// | [`states_max`](Self::states_max) | 1,000 | no limit |
///
/// ```
/// use std::time::Duration;
/// use timely_statefun::{Endpoint, FunctionType, Functions, OnFailure, TypedValue};
///
/// const GREETER: FunctionType<String> = FunctionType::new("example/greeter");
///
/// let greeter = Endpoint::at("http://localhost:8000/{function.name}")
///     .call_timeout(Duration::from_secs(30))
///     .on_failure(OnFailure::DeadLetter);
/// let runtime = tokio::runtime::Runtime::new().unwrap();
/// let functions: Functions<TypedValue> =
///     Functions::new().remote(GREETER, greeter).runtime(runtime.handle().clone());
/// functions.check().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub(crate) url: String,
    pub(crate) call_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) batch_messages_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) connections_idle_max: usize,
    pub(crate) connection_idle: Duration,
    pub(crate) response_bytes_max: usize,
    pub(crate) retry_first: Duration,
    pub(crate) incomplete_max: u32,
    pub(crate) states_max: usize,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) http2: bool,
    pub(crate) on_failure: OnFailure,
    pub(crate) detached: bool,
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $of:ty,)*) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $of) -> Self {
            self.$name = $name;
            self
        }
    )* };
}

impl Endpoint {
    /// Functions that are served at this URL.
    pub fn at(url: impl Into<String>) -> Self {
        Endpoint {
            url: url.into(),
            call_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(10),
            batch_messages_max: 1000,
            batch_bytes_max: 8 << 20,
            in_flight_max: 256,
            connections_idle_max: 1024,
            connection_idle: Duration::from_secs(60),
            response_bytes_max: 32 << 20,
            retry_first: Duration::from_millis(10),
            incomplete_max: 8,
            states_max: 1000,
            headers: Vec::new(),
            http2: false,
            on_failure: OnFailure::Stop,
            detached: false,
        }
    }

    options! {
        /// How long a call may take, with all its attempts: one that fails is tried again until then.
        /// Shorter than other timeouts, it lowers them.
        call_timeout: Duration,
        /// How long it may take to connect.
        connect_timeout: Duration,
        /// How long an answer may make no progress.
        read_timeout: Duration,
        /// How many messages of an address a call may be about; at least 1.
        batch_messages_max: usize,
        /// How many bytes of messages a call may be about. A message that is larger goes by itself.
        batch_bytes_max: usize,
        /// How many calls may be under way on a worker; at least 1. What is beyond waits, and goes in
        /// fewer calls when its turn comes.
        in_flight_max: usize,
        /// How many connections may be kept that nobody uses.
        connections_idle_max: usize,
        /// How long a connection may be kept that nobody uses.
        connection_idle: Duration,
        /// How many bytes an answer may have.
        response_bytes_max: usize,
        /// How long to wait before the second attempt at a call. Doubles with each; chance takes off up
        /// to half.
        retry_first: Duration,
        /// How often a function may ask for more states about one batch.
        incomplete_max: u32,
        /// How many states a function may have.
        states_max: usize,
        /// Whether to speak HTTP/2 from the beginning, also without TLS. Default: HTTP/1.1.
        http2: bool,
        /// What becomes of a message that cannot be handled. Default: stop.
        ///
        /// A batch that cannot be handled is divided until the messages are found that are to blame.
        on_failure: OnFailure,
    }

    /// Sends a header with every request.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Has what the function does be a new event, as a delayed message is: it happens at a later
    /// ingress time, and does not hold back the time of what caused it.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// The URL for a function of this name.
    pub(crate) fn url_of(&self, name: &str) -> String {
        self.url.replace("{function.name}", name)
    }
}

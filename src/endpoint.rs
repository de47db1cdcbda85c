//! Where a remote function is served, and how it is called.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::call_error::CallError;
use crate::dead_letter::OnFailure;
use crate::spec;
use crate::state::Conversions;
#[cfg(feature = "tls")]
use crate::tls::{Pem, Tls};
use crate::value::ValueSpec;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// Waits are counted in these.
const MILLISECOND: Duration = Duration::from_millis(1);

/// Where remote functions are served over HTTP, and how they are called.
///
/// What serves them speaks the StateFun 3.x protocol, as its SDKs for Python, Java, Go and JavaScript do.
/// `{function.name}` in the URL stands for the name of the function's type, without its namespace.
///
/// In `http+unix:///run/functions.sock/path`, all up to the first part of the path that ends with `.sock` is the
/// file of a Unix socket, and the rest is the path that is requested, of a host that is called `localhost`. What
/// is escaped in a URL (`%20`) is so there too. The name of a function may stand in the socket's path as well,
/// where it leads to no other directory: a name with which a part of the path would be `.` or `..`, or have a
/// `/`, is refused, and so is a path that is longer than the system allows, about a hundred bytes. Connections
/// that nobody uses are then kept for each socket. A socket that is not there, or where nobody listens, is
/// somebody who [is not reached](CallError::is_connect), and who is called again.
///
/// The timeouts are nested: a default above the call timeout is lowered to it, and one that was set above
/// it is a mistake, as is an option that leaves nothing over, such as batches of no messages.
///
/// | option | default | in StateFun |
/// |---|---|---|
/// | [`call_timeout`](Self::call_timeout) | 2 min | 2 min (`call`) |
/// | [`connect_timeout`](Self::connect_timeout) | 20 s | 20 s (`connect`) |
/// | [`write_timeout`](Self::write_timeout) | 10 s | none; 10 s with OkHttp |
/// | [`read_timeout`](Self::read_timeout) | 10 s | none; 10 s with OkHttp |
/// | [`batch_messages_max`](Self::batch_messages_max) | 1,000 | 1,000 (`maxNumBatchRequests`) |
/// | [`batch_bytes_max`](Self::batch_bytes_max) | 8 MiB | none |
/// | [`in_flight_max`](Self::in_flight_max) | 256 a worker | none for a function |
/// | [`connections_idle_max`](Self::connections_idle_max) | 1,024 | 1,024 (`pool_size`) |
/// | [`connection_idle`](Self::connection_idle) | 60 s | 15 s; 1 min with OkHttp |
/// | [`response_bytes_max`](Self::response_bytes_max) | 32 MiB | 32 MiB (`payload_max_bytes`) |
/// | [`effects_max`](Self::effects_max) | 100,000 | no limit |
/// | [`retry_first`](Self::retry_first) | 10 ms | 4 ms; 10 ms with OkHttp |
/// | [`retry_longest`](Self::retry_longest) | 10 s | no limit |
/// | [`retry_if`](Self::retry_if) | [`CallError::may_pass`] | everything; less with OkHttp |
/// | [`incomplete_max`](Self::incomplete_max) | 8 | no limit |
/// | [`states_max`](Self::states_max) | 1,000 | no limit |
#[cfg_attr(
    feature = "tls",
    doc = "\
| [`trusted_roots`](Self::trusted_roots) | the system's | the JRE's (`trust_cacerts`) |
| [`client_cert`](Self::client_cert) | none | none (`client_cert`) |
| [`client_key`](Self::client_key) | none | none (`client_key`) |
| [`client_key_password`](Self::client_key_password) | none | none (`client_key_password`, which is a file) |"
)]
///
/// A URL that begins with `https://` is called with TLS, for which there is the feature `tls`; without it, such a
/// URL is not valid. The server shows a certificate for the host that the URL names, which one of the trusted
/// roots signed, or it is [not reached](CallError::is_connect), and called again: certificates are replaced while
/// programs run. So it is if it wants a certificate of the client where there is none, or does not take the one it
/// was shown; the latter can come so late (TLS 1.3) that the connection [was lost](CallError::is_lost). Where TLS
/// is spoken to a server that has none, nobody is reached either. Where it is the other way round, what
/// answers does not speak HTTP: the connection was lost, as with anything else that answers so.
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
#[derive(Clone, PartialEq)]
pub struct Endpoint {
    // Programs keep endpoints in their own types, where they should not be the largest part.
    pub(crate) options: Box<Options>,
}

/// What is said of an endpoint.
#[derive(Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) call_timeout: Duration,
    connect_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    read_timeout: Option<Duration>,
    pub(crate) batch_messages_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) connections_idle_max: usize,
    pub(crate) connection_idle: Duration,
    pub(crate) response_bytes_max: usize,
    pub(crate) effects_max: usize,
    pub(crate) retry_first: Duration,
    retry_longest: Option<Duration>,
    retry_if: RetryIf,
    pub(crate) incomplete_max: u32,
    pub(crate) states_max: usize,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) http2: bool,
    pub(crate) grpc: bool,
    pub(crate) on_failure: OnFailure,
    pub(crate) detached: bool,
    pub(crate) conversions: Conversions,
    #[cfg(feature = "tls")]
    pub(crate) tls: Tls,
}

/// What a program says about errors, if it does. Two are the same if one is a clone of the other.
#[derive(Clone)]
struct RetryIf(Option<Arc<Again>>);

type Again = dyn Fn(&CallError) -> bool + Send + Sync;

impl PartialEq for RetryIf {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $of:ty,)*) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $of) -> Self {
            self.options.$name = $name.into();
            self
        }
    )* };
}

impl Endpoint {
    /// Functions that are served at this URL.
    pub fn at(url: impl Into<String>) -> Self {
        let options = Options {
            url: url.into(),
            call_timeout: Duration::from_secs(120),
            connect_timeout: None,
            write_timeout: None,
            read_timeout: None,
            batch_messages_max: 1000,
            batch_bytes_max: 8 << 20,
            in_flight_max: 256,
            connections_idle_max: 1024,
            connection_idle: Duration::from_secs(60),
            response_bytes_max: 32 << 20,
            effects_max: 100_000,
            retry_first: Duration::from_millis(10),
            retry_longest: None,
            retry_if: RetryIf(None),
            incomplete_max: 8,
            states_max: 1000,
            headers: Vec::new(),
            http2: false,
            grpc: false,
            on_failure: OnFailure::Stop,
            detached: false,
            conversions: Conversions::default(),
            #[cfg(feature = "tls")]
            tls: Tls::default(),
        };
        Endpoint { options: Box::new(options) }
    }

    options! {
        /// How long a call may take, with all its attempts and the waits in between: one that fails is
        /// tried again until then. More than nothing.
        call_timeout: Duration,
        /// How long it may take to connect. More than nothing, and at most the call timeout.
        connect_timeout: Duration,
        /// How long a request may make no progress while it is handed to the connection, which takes
        /// some hundred kilobytes at once; after that, one waits for the answer. More than nothing, and at
        /// most the call timeout.
        write_timeout: Duration,
        /// How long an answer may make no progress: until its head has come, and then between one piece of
        /// its body and the next. More than nothing, and at most the call timeout.
        read_timeout: Duration,
        /// How many messages of an address a call may be about; at least 1. They are all of one ingress
        /// time, unless the function [mixes times](crate::Functions::remote_mixing_times).
        batch_messages_max: usize,
        /// How many bytes of messages a call may be about; at least 1. A message that is larger goes by
        /// itself.
        batch_bytes_max: usize,
        /// How many calls may be under way on a worker for each function type, or for all types of a
        /// namespace together, that is bound to this endpoint; at least 1. What is beyond waits, and goes
        /// in fewer calls when its turn comes. All remote functions together have
        /// [`Limits::in_flight_max`](crate::Limits::in_flight_max).
        in_flight_max: usize,
        /// How many connections may be kept that nobody uses; with 0, none is used twice.
        connections_idle_max: usize,
        /// How long a connection may be kept that nobody uses.
        connection_idle: Duration,
        /// How many bytes an answer may have; at least 1.
        response_bytes_max: usize,
        /// How many messages, records, changes of state and missing states an answer may list, all
        /// together; at least 1. They are counted before any of them takes memory, which can be a hundred
        /// times their bytes. The answer to a batch that exceeds it is that of a batch that failed: half of
        /// the batch is tried next.
        effects_max: usize,
        /// How long to wait before the second attempt at a call; at least a millisecond, in which it is
        /// counted. Doubles with each attempt; chance takes off up to half. An answer with status 429
        /// or 503 may ask for more seconds (`Retry-After`), and gets them up to
        /// [`retry_longest`](Self::retry_longest) and within the call timeout.
        retry_first: Duration,
        /// How long to wait between two attempts at most; not less than
        /// [`retry_first`](Self::retry_first), to which a shorter default is raised.
        retry_longest: Duration,
        /// How often a function may ask for more states about one batch. With 0, it can keep none.
        incomplete_max: u32,
        /// How many states a function may have.
        states_max: usize,
        /// Whether to speak HTTP/2 from the beginning, also without TLS; with it, it is all that the server is
        /// offered (ALPN). Default: HTTP/1.1, in the same way.
        http2: bool,
        /// What becomes of a message that cannot be handled. Default: stop.
        ///
        /// A batch that cannot be handled is divided until the messages are found that are to blame. Where
        /// the function answers with an error such as 500, that begins after three attempts; only a
        /// message that is alone is tried for the whole [`call_timeout`](Self::call_timeout).
        on_failure: OnFailure,
    }

    /// Says after which errors a call is tried again, within its [timeout](Self::call_timeout). Default:
    /// [`CallError::may_pass`].
    ///
    /// Servers close connections that are not used for a while. Whoever refuses another attempt where the
    /// connection was [lost](CallError::is_lost) should keep none that nobody uses, or messages fail for
    /// no fault of theirs. A panic counts as a refusal.
    #[must_use]
    pub fn retry_if(mut self, again: impl Fn(&CallError) -> bool + Send + Sync + 'static) -> Self {
        self.options.retry_if = RetryIf(Some(Arc::new(again)));
        self
    }

    /// Has what is stored of one value be restored as another one, as an embedded function may
    /// [say](crate::Function::converted). Types have the names that the function itself gives them, and the bytes
    /// that other languages read: the specs are those of built-in types, or
    /// [shared](ValueSpec::shared). Default: where the function says that a state has another type than it is
    /// stored with, its batch fails.
    #[must_use]
    pub fn converted<O: 'static, V: 'static>(
        mut self,
        from: ValueSpec<O>,
        to: ValueSpec<V>,
        convert: impl Fn(O) -> Result<V, Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.options.conversions.converted.push(spec::conversion(from, to, convert));
        self
    }

    /// Leaves out, when a program is restored, what is stored of a value with this name and of this type. Default:
    /// as for [`converted`](Self::converted).
    #[must_use]
    pub fn discarded(mut self, name: impl Into<String>, type_name: impl Into<String>) -> Self {
        self.options.conversions.discarded.push((name.into(), type_name.into()));
        self
    }

    /// Sends a header with every request. One that is given several times is sent several times.
    ///
    /// `User-Agent` replaces what is sent otherwise, "statefun". Headers that say what is sent and how are
    /// not for others to set: a program that gives one is not valid. Values are shown nowhere.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.headers.push((name.into(), value.into()));
        self
    }

    /// Calls over gRPC: with the same two messages as over HTTP, as `RequestReply.Invoke` in the `.proto` files of
    /// `timely-statefun-proto` has it, of which a server in any language can be made.
    ///
    /// Everything that an endpoint can be told holds: limits, timeouts, attempts, Unix sockets. The path is gRPC's own,
    /// so the URL only says who is asked: one that has a path or a query is not valid, such as
    /// `http://localhost:8000/{function.name}`. Whom a request is for stands in it, and `{function.name}` may still be
    /// in the name of a host or of a socket. HTTP/2 is spoken from the beginning, whatever [`http2`](Self::http2)
    /// says. Servers are told how much is left of the [call timeout](Self::call_timeout) (`grpc-timeout`), and
    /// [headers](Self::header) are metadata: names that begin with `grpc-` are gRPC's, and the values of those that
    /// end with `-bin` must be base64.
    ///
    /// A status that is not OK counts as [`CallError::may_pass`] says. What UNAVAILABLE and RESOURCE_EXHAUSTED ask for
    /// (`grpc-retry-pushback-ms`) is given as `Retry-After` is. A server that answers without gRPC, say a proxy with an
    /// error, is understood as over HTTP. In tests that answer in the place of the
    /// network (`testing`), requests and answers are those of HTTP.
    ///
    /// ```
    /// use timely_statefun::Endpoint;
    ///
    /// let greeter = Endpoint::at("http://localhost:8000").grpc();
    /// # let _ = greeter;
    /// ```
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn grpc(mut self) -> Self {
        self.options.grpc = true;
        self
    }

    /// Has what the function does be a new event, as a delayed message is: it happens at a later
    /// ingress time, and does not hold back the time of what caused it.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.options.detached = true;
        self
    }
}

/// Options of URLs that begin with `https://`, with the feature `tls`; for another URL, each is a mistake.
///
/// Files are read when functions are bound to the endpoint. One that cannot be read, has not what it should
/// have, or does not fit the others, is an error that names it.
#[cfg(feature = "tls")]
impl Endpoint {
    /// Who signs certificates that are trusted, instead of those whom the system trusts: certificates of
    /// authorities, or of servers that signed their own. Default: whom the system trusts, as far as its
    /// environment does not say otherwise (`SSL_CERT_FILE`, `SSL_CERT_DIR`).
    #[must_use]
    pub fn trusted_roots(mut self, roots: Pem) -> Self {
        self.options.tls.trusted_roots = Some(roots);
        self
    }

    /// With which certificate the client shows who it is, if the server asks; and those that lead from it to a
    /// root, in this order. Goes with [`client_key`](Self::client_key), or is a mistake.
    #[must_use]
    pub fn client_cert(mut self, cert: Pem) -> Self {
        self.options.tls.client_cert = Some(cert);
        self
    }

    /// The private key of [`client_cert`](Self::client_cert): PKCS#8, PKCS#1 or SEC1; RSA, ECDSA or Ed25519.
    #[must_use]
    pub fn client_key(mut self, key: Pem) -> Self {
        self.options.tls.client_key = Some(key);
        self
    }

    /// What opens [`client_key`](Self::client_key), which is PKCS#8 encrypted with PBES2 then, as
    /// `openssl pkcs8 -topk8` does it. StateFun has a file for it, of which this is the content.
    #[must_use]
    pub fn client_key_password(mut self, password: impl Into<String>) -> Self {
        self.options.tls.client_key_password = Some(password.into());
        self
    }
}

impl Options {
    /// Whether HTTP/2 is spoken, from the beginning.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.http2 || self.grpc
    }

    /// Whether there is another attempt after an error.
    pub(crate) fn retries(&self, error: &CallError) -> bool {
        match &self.retry_if.0 {
            Some(again) => catch_unwind(AssertUnwindSafe(|| again(error))).unwrap_or(false),
            None => error.may_pass(),
        }
    }

    pub(crate) fn connect_timeout_or_default(&self) -> Duration {
        self.connect_timeout.unwrap_or(CONNECT_TIMEOUT).min(self.call_timeout)
    }

    pub(crate) fn write_timeout_or_default(&self) -> Duration {
        self.write_timeout.unwrap_or(WRITE_TIMEOUT).min(self.call_timeout)
    }

    pub(crate) fn read_timeout_or_default(&self) -> Duration {
        self.read_timeout.unwrap_or(READ_TIMEOUT).min(self.call_timeout)
    }

    pub(crate) fn retry_longest_or_default(&self) -> Duration {
        self.retry_longest.unwrap_or(RETRY_LONGEST.max(self.retry_first))
    }

    /// Checks the options that say how much and how long.
    ///
    /// # Errors
    ///
    /// What is wrong with the first that means nothing.
    pub(crate) fn check(&self) -> Result<(), String> {
        let call = self.call_timeout;
        if call.is_zero() {
            return Err("call_timeout is 0".to_owned());
        }
        for (name, timeout) in [
            ("connect_timeout", self.connect_timeout),
            ("write_timeout", self.write_timeout),
            ("read_timeout", self.read_timeout),
        ] {
            match timeout {
                Some(Duration::ZERO) => return Err(format!("{name} is 0")),
                Some(timeout) if timeout > call => {
                    return Err(format!(
                        "{name} is {timeout:?}, which is more than call_timeout, {call:?}"
                    ));
                }
                _ => {}
            }
        }
        for (name, count) in [
            ("batch_messages_max", self.batch_messages_max),
            ("batch_bytes_max", self.batch_bytes_max),
            ("in_flight_max", self.in_flight_max),
            ("response_bytes_max", self.response_bytes_max),
            ("effects_max", self.effects_max),
        ] {
            if count == 0 {
                return Err(format!("{name} is 0"));
            }
        }
        let (first, longest) = (self.retry_first, self.retry_longest_or_default());
        if first < MILLISECOND {
            return Err(format!("retry_first is {first:?}, which is less than a millisecond"));
        }
        if longest < first {
            return Err(format!(
                "retry_longest is {longest:?}, which is less than retry_first, {first:?}"
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        // Headers and queries hold secrets.
        let headers: Vec<_> = options.headers.iter().map(|(name, _)| name).collect();
        let mut debug = f.debug_struct("Endpoint");
        #[cfg(feature = "tls")]
        debug
            .field("trusted_roots", &options.tls.trusted_roots)
            .field("client_cert", &options.tls.client_cert)
            .field("client_key", &options.tls.client_key);
        debug
            .field("url", &shown(&options.url))
            .field("call_timeout", &options.call_timeout)
            .field("connect_timeout", &options.connect_timeout_or_default())
            .field("write_timeout", &options.write_timeout_or_default())
            .field("read_timeout", &options.read_timeout_or_default())
            .field("batch_messages_max", &options.batch_messages_max)
            .field("batch_bytes_max", &options.batch_bytes_max)
            .field("in_flight_max", &options.in_flight_max)
            .field("connections_idle_max", &options.connections_idle_max)
            .field("connection_idle", &options.connection_idle)
            .field("response_bytes_max", &options.response_bytes_max)
            .field("effects_max", &options.effects_max)
            .field("retry_first", &options.retry_first)
            .field("retry_longest", &options.retry_longest_or_default())
            .field("incomplete_max", &options.incomplete_max)
            .field("states_max", &options.states_max)
            .field("headers", &headers)
            .field("http2", &options.http2)
            .field("grpc", &options.grpc)
            .field("on_failure", &options.on_failure)
            .field("detached", &options.detached)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The URL of a function as it may be shown.
    pub(crate) fn shown_for(&self, name: &str) -> String {
        shown(&self.options.url.replace("{function.name}", name))
    }
}

/// A URL as it may be shown: without a user's name and password, and without its query, which may hold
/// secrets.
pub(crate) fn shown(url: &str) -> String {
    let (place, more) = match url.find(['?', '#']) {
        Some(at) => (&url[..at], "?…"),
        None => (url, ""),
    };
    let (scheme, rest) = place.split_once("//").unwrap_or(("", place));
    // A socket has no user; what looks so is in the name of a file.
    if scheme.to_ascii_lowercase().ends_with("+unix:") && rest.starts_with('/') {
        return format!("{place}{more}");
    }
    let rest = rest.trim_start_matches(['/', '\\']);
    let authority = match scheme {
        "" => rest,
        _ => rest.split(['/', '\\']).next().unwrap_or_default(),
    };
    match authority.rfind('@') {
        Some(at) => format!("{scheme}//…{}{more}", &rest[at..]),
        None => format!("{place}{more}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        for (url, seen) in [
            ("http://host:80/a@b/c", "http://host:80/a@b/c"),
            ("http://host/a?code=secret", "http://host/a?…"),
            ("http://host/a#secret", "http://host/a?…"),
            ("http://user:secret@host/a@b", "http://…@host/a@b"),
            ("http:////user:secret@host", "http://…@host"),
            ("http:user:secret@host", "//…@host"),
            ("http:\\\\user:secret@host\\a", "//…@host\\a"),
            ("http+unix:///us@er/x.sock/a?code=secret", "http+unix:///us@er/x.sock/a?…"),
            ("http+unix://user:secret@host/x.sock", "http+unix://…@host/x.sock"),
            ("not a url", "not a url"),
        ] {
            assert_eq!(shown(url), seen, "{url}");
        }
    }
}

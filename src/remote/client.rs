//! Calls over HTTP or gRPC: one request, tried until it is answered or its time is up.

use std::borrow::Cow;
use std::future::Future;
#[cfg(feature = "testing")]
use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use reqwest::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    USER_AGENT,
};
use timely_statefun_proto::Bytes;
use tokio::time::{self, Instant, timeout};

use super::body::{Pieces, Progress, Stage};
#[cfg(feature = "grpc")]
use super::grpc::{self, Exchange, Missing};
use super::place::{Place, Places};
use super::timer::Timer;
use super::transport::{self, Secure, Transport};
use super::wire;
use crate::address::{Address, Id};
use crate::call_error::CallError;
use crate::dead_letter::Reason;
use crate::dispatch::{CallAnswer, CallFailure};
use crate::endpoint::{Endpoint, Options, shown};
use crate::metering::Spread;
use crate::placement;
use crate::retry::Retry;
use crate::trace::{TRACEPARENT, TraceContext};

const OCTETS: &str = "application/octet-stream";
/// Headers that say what is sent and how, which is not for others to decide.
const OURS: &[&str] = &[
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// How much is read of an answer that is an error, so that its connection can be used again.
const REMARK_BYTES: usize = 64 << 10;
/// How long that may take at most.
const REMARK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often several messages are tried together that the function fails to handle. Fewer of them are
/// tried next, which is another attempt for each.
const TOGETHER: u32 = 3;
/// How many characters are shown of what others say.
const SHOWN: usize = 256;

/// A failure that names no message.
pub(super) fn failure(what: impl Into<String>, is_of_messages: bool) -> CallFailure {
    CallFailure { reason: Reason::Call(what.into()), is_of_messages }
}

/// Why one attempt came to nothing.
struct Attempt {
    error: CallError,
    /// How long the endpoint asks to be left alone.
    wait: Option<Duration>,
}

impl From<CallError> for Attempt {
    fn from(error: CallError) -> Self {
        Attempt { error, wait: None }
    }
}

/// How a function is reached.
pub(super) struct Route {
    place: Place,
    transport: Transport,
}

/// A call that is to be made.
pub(super) struct Call<'a> {
    pub(super) target: &'a Address,
    pub(super) route: &'a Route,
    pub(super) body: Bytes,
    /// How many messages it is about.
    pub(super) messages: usize,
    /// Is told how long each attempt took.
    pub(super) took: Spread,
    /// Of which trace it is a part, if that is said.
    pub(super) trace: Option<TraceContext>,
}

/// Calls the functions of one endpoint.
pub(super) struct Client {
    places: Places,
    /// What carries all requests, unless each function has a socket of its own.
    transport: Option<Transport>,
    secure: Secure,
    endpoint: Options,
    headers: HeaderMap,
    retry: Retry,
    /// Whether requests go over gRPC.
    #[cfg(feature = "grpc")]
    grpc: bool,
}

impl Client {
    /// # Errors
    ///
    /// What is wrong with the endpoint's options, its URL or a header.
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, String> {
        let endpoint = &*endpoint.options;
        endpoint.check()?;
        let places = Places::new(&endpoint.url)?;
        #[cfg(feature = "grpc")]
        let places = match endpoint.grpc {
            true => places.at_path(crate::grpc::INVOKE_PATH)?,
            false => places,
        };
        let place = places.place("name")?;
        place.check(cfg!(feature = "tls"))?;
        let secure = Secure::new(endpoint, &place)?;
        // Where each has a socket of its own, this shows that there can be one.
        let transport = Transport::through(endpoint, &secure, &place)?;
        let transport = Some(transport).filter(|_| !places.have_sockets_of_their_own());
        let retry = Retry::attempts(u32::MAX)
            .first(endpoint.retry_first)
            .longest(endpoint.retry_longest_or_default());
        let headers = headers(endpoint)?;
        Ok(Client {
            places,
            transport,
            secure,
            endpoint: endpoint.clone(),
            headers,
            retry,
            #[cfg(feature = "grpc")]
            grpc: endpoint.grpc,
        })
    }

    /// Has somebody else than the network answer, who is asked and answers as over HTTP.
    #[cfg(feature = "testing")]
    pub(super) fn answered_by(&mut self, answers: Arc<dyn super::Answers>) {
        #[cfg(feature = "grpc")]
        {
            self.grpc = false;
        }
        self.transport = Some(Transport::Given(answers));
    }

    /// How a function is reached.
    ///
    /// # Errors
    ///
    /// If there is no place for this name.
    pub(super) fn route(&self, name: &str) -> Result<Route, String> {
        let place = self.places.place(name)?;
        let transport = match &self.transport {
            Some(transport) => transport.clone(),
            None => Transport::through(&self.endpoint, &self.secure, &place)?,
        };
        Ok(Route { place, transport })
    }

    /// The same, with what is said of a call for which there is none.
    ///
    /// # Errors
    ///
    /// If there is no place for this name.
    pub(super) fn route_of_call(&self, name: &str) -> Result<Route, CallFailure> {
        let why = |why| format!("there is no URL for \"{}\": {why}", brief(name));
        self.route(name).map_err(|error| failure(why(error), false))
    }

    /// Calls a function until it answers or its time is up. Counts the attempts that fail.
    pub(super) async fn call(
        &self,
        call: Call<'_>,
        failed_attempts: &mut u32,
    ) -> Result<CallAnswer, CallFailure> {
        let Call { target, route, body, messages, took, trace } = call;
        let mut headers = Cow::Borrowed(&self.headers);
        if let Some(trace) = trace {
            let value = HeaderValue::try_from(trace.to_string()).expect("it is made of digits");
            headers.to_mut().insert(TRACEPARENT, value);
        }
        let began = Instant::now();
        let sleep = std::pin::pin!(time::sleep(self.endpoint.call_timeout));
        let mut timer = Timer::new(sleep);
        let (mut attempts, mut before) = (0, None);
        loop {
            attempts += 1;
            let attempt_began = Instant::now();
            let outcome = self.attempt(&mut timer, route, &headers, body.clone()).await;
            took.tell(attempt_began.elapsed());
            *failed_attempts += u32::from(outcome.is_err());
            let attempt = match outcome {
                #[cfg(statefun_planted)]
                Ok(CallAnswer::Done(mut effects))
                    if attempts > 1 && crate::planted::is("applied-twice") =>
                {
                    effects.sent.extend(effects.sent.clone());
                    return Ok(CallAnswer::Done(effects));
                }
                Ok(answer) => return Ok(answer),
                Err(_) if timer.is_over() => {
                    let what = match before {
                        Some(before) => format!("{before}; then there was no answer in time"),
                        None => "there was no answer in time".to_owned(),
                    };
                    return Err(failed(target, route, attempts, &what, true));
                }
                Err(attempt) => attempt,
            };
            tracing::debug!(attempts, error = %attempt.error, "an attempt at a call failed");
            let chance = began.elapsed().as_nanos() as u64 ^ spread(target);
            let own = Duration::from_millis(self.retry.wait_ms(attempts, chance));
            let asked = attempt.wait.unwrap_or_default();
            let left = self.endpoint.call_timeout.saturating_sub(began.elapsed());
            let asked = asked.min(self.endpoint.retry_longest_or_default());
            let wait = if asked < left { own.max(asked) } else { own };
            let divide = messages > 1 && attempts >= TOGETHER && attempt.error.is_of_function();
            if divide || wait >= left || !self.endpoint.retries(&attempt.error) {
                // Whoever is not reached cannot have minded the messages.
                let is_of_messages = !attempt.error.is_connect();
                let what = attempt.error.to_string();
                return Err(failed(target, route, attempts, &what, is_of_messages));
            }
            before = Some(attempt.error.to_string());
            time::sleep(wait).await;
        }
    }

    async fn attempt(
        &self,
        timer: &mut Timer<'_>,
        route: &Route,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<CallAnswer, Attempt> {
        #[cfg(feature = "grpc")]
        if self.grpc {
            let answer = self.invoke(timer, route, headers, body).await?;
            return Ok(self.read(answer)?);
        }
        let mut answer = self.send(timer, route, headers, body).await?;
        if !answer.status().is_success() {
            return Err(self.refused(timer, answer).await);
        }
        let nonsense = |what: String| Attempt::from(CallError::meaningless(what));
        let found = |name| {
            let found: Option<&HeaderValue> = answer.headers().get(name);
            found.map(|found| String::from_utf8_lossy(found.as_bytes()).into_owned())
        };
        if !found(CONTENT_TYPE).is_some_and(|found| is_octets(&found)) {
            let found = found(CONTENT_TYPE)
                .map_or("missing".to_owned(), |found| format!("\"{}\"", brief(&found)));
            return Err(nonsense(format!("the answer's content type is {found}, not {OCTETS}")));
        }
        if let Some(encoding) = found(CONTENT_ENCODING)
            && encoding != "identity"
        {
            let encoding = brief(&encoding);
            return Err(nonsense(format!("the answer's encoding is \"{encoding}\", not identity")));
        }
        let bytes_max = self.endpoint.response_bytes_max;
        let too_large = || nonsense(format!("the answer is larger than {bytes_max} bytes"));
        let announced = answer.content_length().unwrap_or(0);
        if announced > bytes_max as u64 {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity((announced as usize).min(REMARK_BYTES));
        while let Some(chunk) = self.chunk(timer, &mut answer).await? {
            if bytes.len() + chunk.len() > bytes_max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(self.read(bytes.into())?)
    }

    /// What an answer says.
    fn read(&self, answer: Bytes) -> Result<CallAnswer, CallError> {
        wire::answer(answer, self.endpoint.effects_max).map_err(|what| {
            CallError::meaningless(format!("the answer means nothing: {}", brief(&what)))
        })
    }

    /// What an answer says that is an error.
    async fn refused(&self, timer: &mut Timer<'_>, answer: Response) -> Attempt {
        let status = answer.status();
        let wait = matches!(status.as_u16(), 429 | 503)
            .then(|| seconds(answer.headers().get(RETRY_AFTER)))
            .flatten();
        let remark = self.remark(timer, answer).await;
        let text = format!("the answer is {status}{remark}");
        Attempt { error: CallError::of_status(status.as_u16(), text), wait }
    }

    /// Sends a request over gRPC, and waits for all of its answer.
    #[cfg(feature = "grpc")]
    async fn invoke(
        &self,
        timer: &mut Timer<'_>,
        route: &Route,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Bytes, Attempt> {
        let progress = Progress::new();
        let exchange = Exchange {
            transport: &route.transport,
            place: &route.place,
            headers,
            bytes_max: self.endpoint.response_bytes_max,
            left: timer.left(),
            progress: &progress,
        };
        match self.in_time(timer, &progress, grpc::invoke(&exchange, body)).await? {
            Ok(answer) => Ok(answer),
            Err(Missing::Error(error, wait)) => Err(Attempt { error, wait }),
            Err(Missing::Other(answer)) => Err(self.refused(timer, *answer).await),
        }
    }

    /// Sends a request and waits for the answer to begin.
    async fn send(
        &self,
        timer: &mut Timer<'_>,
        route: &Route,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response, CallError> {
        let progress = Progress::new();
        let body = Pieces::telling(body, progress.clone());
        let sent = route.transport.post(&route.place, headers, body);
        self.in_time(timer, &progress, sent).await?
    }

    /// What becomes of a request that makes progress.
    async fn in_time<T>(
        &self,
        timer: &mut Timer<'_>,
        progress: &Progress,
        step: impl Future<Output = T>,
    ) -> Result<T, CallError> {
        let write = self.endpoint.write_timeout_or_default();
        let read = self.endpoint.read_timeout_or_default();
        let shorter = write.min(read);
        let mut step = std::pin::pin!(step);
        loop {
            let (stage, since) = progress.look();
            let limit = match stage {
                // This has a limit of its own, and what comes after it begins later.
                Stage::Connecting => None,
                Stage::Writing => Some(write),
                Stage::Written => Some(read),
                #[cfg(feature = "grpc")]
                Stage::Reading => Some(read),
            };
            let left = limit.map(|limit| limit.saturating_sub(since.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(CallError::stalled(match stage {
                    Stage::Written => format!("there was no answer for {read:?}"),
                    #[cfg(feature = "grpc")]
                    Stage::Reading => format!("the answer made no progress for {read:?}"),
                    _ => format!("the request made no progress for {write:?}"),
                }));
            }
            let left = left.unwrap_or(shorter).min(shorter);
            match timer.within(left, step.as_mut()).await {
                Some(outcome) => return Ok(outcome),
                None if timer.is_over() => {
                    return Err(CallError::stalled("its time is up".to_owned()));
                }
                None => {}
            }
        }
    }

    /// The next piece of an answer.
    async fn chunk(
        &self,
        timer: &mut Timer<'_>,
        answer: &mut Response,
    ) -> Result<Option<Bytes>, CallError> {
        let read = self.endpoint.read_timeout_or_default();
        match timer.within(read, std::pin::pin!(answer.chunk())).await {
            Some(chunk) => chunk.map_err(transport::error),
            None => Err(CallError::stalled(format!("the answer made no progress for {read:?}"))),
        }
    }

    /// What an answer that is an error says, if that is text.
    async fn remark(&self, timer: &mut Timer<'_>, mut answer: Response) -> String {
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_text = kind.is_some_and(|kind| kind.starts_with("text/"));
        let mut text = Vec::new();
        let mut read = 0;
        let reading = async {
            while read < REMARK_BYTES
                && let Ok(Some(chunk)) = self.chunk(timer, &mut answer).await
            {
                read += chunk.len();
                let room = (4 * SHOWN).saturating_sub(text.len());
                text.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
        };
        // What is not read costs the connection, and nothing else.
        let _ = timeout(REMARK_TIMEOUT, reading).await;
        let text = String::from_utf8_lossy(&text);
        match text.trim() {
            "" => String::new(),
            text if is_text => format!(": {}", brief(text)),
            _ => String::new(),
        }
    }
}

/// What is sent with every request.
fn headers(endpoint: &Options) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let invalid = |error: &dyn std::fmt::Display| format!("header \"{name}\": {error}");
        let name = HeaderName::try_from(name).map_err(|error| invalid(&error))?;
        if OURS.contains(&name.as_str()) {
            return Err(invalid(
                &"it says what is sent and how, which is not for others to decide",
            ));
        }
        if endpoint.grpc && name.as_str().starts_with("grpc-") {
            return Err(invalid(&"gRPC has such names for itself"));
        }
        let mut value = HeaderValue::try_from(value).map_err(|error| invalid(&error))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    if !endpoint.grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
        headers.insert(ACCEPT, HeaderValue::from_static(OCTETS));
    }
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static("statefun"));
    Ok(headers)
}

fn failed(
    target: &Address,
    route: &Route,
    attempts: u32,
    what: &str,
    is_of_messages: bool,
) -> CallFailure {
    let (target, url) = (brief(&target.to_string()), brief(&shown(&route.place.given)));
    let what = format!("calling \"{target}\" at {url} failed (attempts: {attempts}): {what}");
    failure(what, is_of_messages)
}

/// A number that is another one for another address, so that calls that fail together are not tried
/// again together.
fn spread(target: &Address) -> u64 {
    placement::hash(&Id::new(&target.to_string()))
}

fn is_octets(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(OCTETS)
}

fn seconds(value: Option<&HeaderValue>) -> Option<Duration> {
    value?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Text of others, no longer than one wants to read, and on one line.
pub(super) fn brief(text: &str) -> String {
    let cut = text.char_indices().nth(SHOWN).map(|(at, _)| at);
    let shown = &text[..cut.unwrap_or(text.len())];
    let shown: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cut.is_some() { format!("{shown}…") } else { shown }
}

//! Where functions are served, as modules say it.

use std::fmt;
#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::time::Duration;

use super::error::{Mistake, ModuleError, Place};
#[cfg(feature = "tls")]
use super::file;
use super::node::Fields;
use super::time;
use super::tree::Node;
use crate::address::{self, TypeName};
use crate::endpoint::Endpoint;
use crate::functions::Functions;
use crate::typed::TypedMessage;

/// Kinds of endpoints.
pub(super) const V1: &str = "io.statefun.endpoints.v1/http";
pub(super) const V2: &str = "io.statefun.endpoints.v2/http";

/// Kinds of transports.
const ASYNC: &str = "io.statefun.transports.v1/async";
const OKHTTP: &str = "io.statefun.transports.v1/okhttp";

/// As many as Java can count.
const COUNT_MAX: u64 = i32::MAX as u64;

const TEN_SECONDS: Duration = Duration::from_secs(10);

/// Functions, and where each is served, as modules say it.
#[derive(Clone, Default)]
pub struct Endpoints {
    served: Vec<Served>,
}

/// Functions that are served at one endpoint.
#[derive(Clone)]
struct Served {
    functions: Target,
    endpoint: Endpoint,
    /// Where it says which functions.
    place: Place,
    /// What opens the private key, with the place where it is named.
    #[cfg(feature = "tls")]
    password: Option<(PathBuf, Place)>,
}

/// Which functions.
#[derive(Clone, PartialEq, Eq)]
enum Target {
    Type(TypeName),
    Namespace(String),
}

impl Endpoints {
    /// Which functions there are: `namespace/name`, or `namespace/*`, in the order of the modules.
    pub fn functions(&self) -> impl Iterator<Item = String> {
        self.served.iter().map(|served| served.functions.to_string())
    }

    /// The endpoint of some functions, as [`functions`](Self::functions) names them. A password that is in a file
    /// is not there before the endpoint is bound.
    pub fn get(&self, functions: &str) -> Option<&Endpoint> {
        let mut served = self.served.iter();
        let found = served.find(|served| served.functions.to_string() == functions);
        found.map(|served| &served.endpoint)
    }

    /// Says more of each endpoint than a module can, such as what becomes of messages that fail.
    ///
    /// ```
    /// # use timely_statefun::modules::{Connectors, Module, Placeholders};
    /// use timely_statefun::OnFailure;
    /// # let text = "{kind: io.statefun.endpoints.v2/http, spec: {functions: a/*, urlPathTemplate: http://b}}";
    /// # let module =
    /// #     Module::parse("module.yaml", text, &Placeholders::none(), &Connectors::<()>::new()).unwrap();
    ///
    /// let (endpoints, _) = module.into_parts();
    /// let endpoints =
    ///     endpoints.map(|_functions, endpoint| endpoint.on_failure(OnFailure::DeadLetter));
    /// # assert!(format!("{endpoints:?}").contains("DeadLetter"));
    /// ```
    #[must_use]
    pub fn map(mut self, mut change: impl FnMut(&str, Endpoint) -> Endpoint) -> Self {
        for served in &mut self.served {
            served.endpoint = change(&served.functions.to_string(), served.endpoint.clone());
        }
        self
    }

    /// Binds all functions, as [`Functions::remote`] and [`Functions::remote_namespace`] do.
    ///
    /// # Errors
    ///
    /// If functions are bound already, an endpoint is not valid, or a file of certificates, a key or a password cannot
    /// be used, at the place where the module names the functions or the password.
    pub fn bind<M, T>(&self, mut functions: Functions<M, T>) -> Result<Functions<M, T>, ModuleError>
    where
        M: TypedMessage + 'static,
        T: Clone + PartialEq + 'static,
    {
        for served in &self.served {
            let endpoint = served.complete()?;
            let bound = match &served.functions {
                Target::Type(name) => functions.try_remote(name.clone(), endpoint),
                Target::Namespace(name) => functions.try_remote_namespace(name, endpoint),
            };
            bound.map_err(|error| ModuleError::new(&served.place, Mistake::Endpoint(error)))?;
        }
        Ok(functions)
    }

    /// Adds an endpoint of version 1 or 2.
    pub(super) fn add(&mut self, kind: &str, spec: &Node) -> Result<(), ModuleError> {
        let known: &[_] = match kind {
            V1 => &["functions", "urlPathTemplate", "maxNumBatchRequests", "timeouts"],
            _ => &["functions", "urlPathTemplate", "maxNumBatchRequests", "transport"],
        };
        let fields = spec.fields(known)?;
        let functions = fields.require("functions")?;
        let mut served = Served {
            functions: target(functions)?,
            endpoint: Endpoint::at(url(fields.require("urlPathTemplate")?)?),
            place: functions.place.clone(),
            #[cfg(feature = "tls")]
            password: None,
        };
        if let Some(max) = fields.get("maxNumBatchRequests") {
            let max = max.number(1..=COUNT_MAX)? as usize;
            served.endpoint = served.endpoint.batch_messages_max(max);
        }
        match kind {
            V1 => served.okhttp(fields.get("timeouts"))?,
            _ => served.transport(fields.get("transport"))?,
        }
        self.push(served)
    }

    /// Adds those of another module.
    pub(super) fn extend(&mut self, other: Endpoints) -> Result<(), ModuleError> {
        other.served.into_iter().try_for_each(|served| self.push(served))
    }

    fn push(&mut self, served: Served) -> Result<(), ModuleError> {
        let first = self.served.iter().find(|before| before.functions == served.functions);
        if let Some(first) = first {
            let (functions, first) = (served.functions.to_string(), first.place.to_string());
            let mistake = Mistake::DuplicateFunctions { functions, first };
            return Err(ModuleError::new(&served.place, mistake));
        }
        self.served.push(served);
        Ok(())
    }
}

impl Served {
    fn transport(&mut self, transport: Option<&Node>) -> Result<(), ModuleError> {
        let Some(transport) = transport else { return self.asynchronous(None) };
        // What else there may be depends on the type, which has a default.
        let of_type = transport.entries()?.iter().find(|(key, _)| &*key.text == "type");
        let of_type = of_type.map(|(_, node)| node).filter(|node| !node.is_nothing());
        match of_type.map(|node| node.one_of(&[ASYNC, OKHTTP])).transpose()? {
            Some(OKHTTP) => self.okhttp(transport.fields(&["type", "timeouts"])?.get("timeouts")),
            _ => self.asynchronous(Some(transport)),
        }
    }

    /// The defaults and options of StateFun's client that builds on OkHttp.
    fn okhttp(&mut self, timeouts: Option<&Node>) -> Result<(), ModuleError> {
        let timeouts = Timeouts::within(timeouts)?;
        let call = timeouts.call.map_or(Duration::from_secs(60), |(call, _)| call);
        self.change(|endpoint| endpoint.call_timeout(call));
        let connect = nested("connect", timeouts.connect, TEN_SECONDS, call)?;
        let read = nested("read", timeouts.read, TEN_SECONDS, call)?;
        let write = nested("write", timeouts.write, TEN_SECONDS, call)?;
        self.change(|endpoint| {
            let endpoint = endpoint.connect_timeout(connect).read_timeout(read);
            endpoint.write_timeout(write).connection_idle(Duration::from_secs(60))
        });
        Ok(())
    }

    /// The defaults and options of StateFun's client that builds on Netty.
    fn asynchronous(&mut self, transport: Option<&Node>) -> Result<(), ModuleError> {
        let fields = transport.map(|transport| {
            transport.fields(&[
                "type",
                "call",
                "connect",
                "timeouts",
                "pool_ttl",
                "pool_size",
                "payload_max_bytes",
                "trust_cacerts",
                "client_cert",
                "client_key",
                "client_key_password",
            ])
        });
        let fields = fields.transpose()?;
        let get = |field| fields.as_ref().and_then(|fields| fields.get(field));
        let (call, connect) = (get("call").map(timeout), get("connect").map(timeout));
        let (call, connect) = (call.transpose()?, connect.transpose()?);
        // If there is such an object, all that counts is in it, and what is not has the defaults of OkHttp.
        let (timeouts, call_default, connect_default) = match get("timeouts") {
            Some(timeouts) => {
                (Timeouts::within(Some(timeouts))?, Duration::from_secs(60), TEN_SECONDS)
            }
            None => {
                let timeouts = Timeouts { call, connect, ..Timeouts::default() };
                (timeouts, Duration::from_secs(120), Duration::from_secs(20))
            }
        };
        let call = timeouts.call.map_or(call_default, |(call, _)| call);
        let connect = nested("connect", timeouts.connect, connect_default, call)?;
        // That client has no others, so an answer may take as long as the call.
        let read = nested("read", timeouts.read, call, call)?;
        let write = nested("write", timeouts.write, call, call)?;
        let idle = get("pool_ttl").map_or(Ok(Duration::from_secs(15)), Node::duration)?;
        let idle = if idle.is_zero() { time::LONGEST } else { idle };
        let count = |field, default| {
            get(field).map_or(Ok(default), |node: &Node| node.number(1..=COUNT_MAX))
        };
        let connections = count("pool_size", 1024)? as usize;
        let bytes = count("payload_max_bytes", 32 << 20)? as usize;
        self.change(|endpoint| {
            let endpoint = endpoint.call_timeout(call).connect_timeout(connect);
            let endpoint = endpoint.read_timeout(read).write_timeout(write);
            let endpoint = endpoint.connection_idle(idle).connections_idle_max(connections);
            // It bounds requests as well.
            let batch = endpoint.options.batch_bytes_max.min(bytes);
            endpoint.response_bytes_max(bytes).batch_bytes_max(batch)
        });
        match &fields {
            Some(fields) => self.tls(fields),
            None => Ok(()),
        }
    }

    #[cfg(feature = "tls")]
    fn tls(&mut self, fields: &Fields<'_>) -> Result<(), ModuleError> {
        use crate::tls::Pem;
        let file = |field| fields.get(field).map(path).transpose();
        if let Some(roots) = file("trust_cacerts")? {
            self.change(|endpoint| endpoint.trusted_roots(Pem::file(roots)));
        }
        if let Some(cert) = file("client_cert")? {
            self.change(|endpoint| endpoint.client_cert(Pem::file(cert)));
        }
        if let Some(key) = file("client_key")? {
            self.change(|endpoint| endpoint.client_key(Pem::file(key)));
        }
        let password = fields.get("client_key_password");
        let password = password.map(|node| Ok((path(node)?, node.place.clone())));
        self.password = password.transpose()?;
        Ok(())
    }

    #[cfg(not(feature = "tls"))]
    fn tls(&mut self, fields: &Fields<'_>) -> Result<(), ModuleError> {
        let options = ["trust_cacerts", "client_cert", "client_key", "client_key_password"];
        let mut nodes = options.iter().filter_map(|option| Some((option, fields.get(option)?)));
        match nodes.next() {
            Some((option, node)) => {
                Err(node.mistake(Mistake::NeedsTls { what: (*option).to_owned() }))
            }
            None => Ok(()),
        }
    }

    /// The endpoint, with the password that is in a file.
    fn complete(&self) -> Result<Endpoint, ModuleError> {
        let endpoint = self.endpoint.clone();
        #[cfg(feature = "tls")]
        if let Some((path, place)) = &self.password {
            let password = file::password(path).map_err(|why| {
                let why = format!("{}: {why}", path.display());
                ModuleError::new(place, Mistake::Unreadable { why })
            })?;
            return Ok(endpoint.client_key_password(password));
        }
        Ok(endpoint)
    }

    fn change(&mut self, change: impl FnOnce(Endpoint) -> Endpoint) {
        self.endpoint = change(self.endpoint.clone());
    }
}

/// Timeouts that are given, each with the place.
#[derive(Default)]
struct Timeouts<'a> {
    call: Option<(Duration, &'a Node)>,
    connect: Option<(Duration, &'a Node)>,
    read: Option<(Duration, &'a Node)>,
    write: Option<(Duration, &'a Node)>,
}

impl<'a> Timeouts<'a> {
    fn within(node: Option<&'a Node>) -> Result<Self, ModuleError> {
        let Some(node) = node else { return Ok(Timeouts::default()) };
        let fields = node.fields(&["call", "connect", "read", "write"])?;
        let get = |field| fields.get(field).map(timeout).transpose();
        Ok(Timeouts {
            call: get("call")?,
            connect: get("connect")?,
            read: get("read")?,
            write: get("write")?,
        })
    }
}

/// A duration that is more than nothing.
fn timeout(node: &Node) -> Result<(Duration, &Node), ModuleError> {
    match node.duration()? {
        Duration::ZERO => {
            let (what, why) = (node.what(), "it is more than nothing");
            let found = node.as_text("a duration")?.written.to_string();
            Err(node.mistake(Mistake::InvalidDuration { what, found, why }))
        }
        timeout => Ok((timeout, node)),
    }
}

/// A timeout within that of a call, to which its default is lowered.
fn nested(
    name: &'static str,
    given: Option<(Duration, &Node)>,
    default: Duration,
    call: Duration,
) -> Result<Duration, ModuleError> {
    match given {
        Some((timeout, node)) if timeout > call => {
            Err(node.mistake(Mistake::TimeoutAboveCall { name, timeout, call }))
        }
        Some((timeout, _)) => Ok(timeout),
        None => Ok(default.min(call)),
    }
}

fn target(node: &Node) -> Result<Target, ModuleError> {
    let text = node.as_text("a text")?;
    let target = match text.filled.strip_suffix("/*") {
        Some(namespace) => {
            let checked = address::check_part("namespace", namespace);
            checked.map(|()| Target::Namespace(namespace.to_owned()))
        }
        None => TypeName::new(&text.filled).map(Target::Type),
    };
    target.map_err(|_| node.mistake(Mistake::InvalidFunctions { found: text.written.to_string() }))
}

fn url(node: &Node) -> Result<&str, ModuleError> {
    let url = node.some_text()?;
    if !cfg!(feature = "tls") {
        let scheme = url.split("://").next().unwrap_or_default().to_ascii_lowercase();
        if matches!(&*scheme, "https" | "https+unix") {
            return Err(node.mistake(Mistake::NeedsTls { what: scheme }));
        }
    }
    Ok(url)
}

/// The path of a file, which may be said to be one.
#[cfg(feature = "tls")]
fn path(node: &Node) -> Result<PathBuf, ModuleError> {
    let path = node.some_text()?;
    if path.starts_with("classpath:") {
        let found = node.as_text("a file")?.written.to_string();
        return Err(node.mistake(Mistake::NoClassPath { found }));
    }
    let path = path.strip_prefix("file://").or(path.strip_prefix("file:")).unwrap_or(path);
    Ok(path.into())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Type(name) => write!(f, "{name}"),
            Target::Namespace(name) => write!(f, "{name}/*"),
        }
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let served = self.served.iter();
        f.debug_map().entries(served.map(|it| (it.functions.to_string(), &it.endpoint))).finish()
    }
}

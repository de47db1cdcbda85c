//! Which kinds of ingress and egress a program knows, and what it makes of them.

use std::collections::BTreeMap;
use std::fmt;

use super::endpoints::{V1, V2};
use super::error::{Mistake, ModuleError, Place, nearest_of};
use super::kafka::{KafkaEgress, KafkaIngress};
use super::kinesis::{KinesisEgress, KinesisIngress};
use super::node::Fields;
use super::tree::Node;
use crate::address::TypeName;

/// What a component of some kind says: an ingress or egress, as a program wants to know it.
///
/// ```
/// use timely_statefun::modules::{ConnectorSpec, Connectors, Fields, Module, ModuleError, Placeholders};
///
/// struct TickIngress {
///     every: std::time::Duration,
/// }
///
/// impl ConnectorSpec for TickIngress {
///     const KIND: &'static str = "example.ticks/ingress";
///     const FIELDS: &'static [&'static str] = &["every"];
///
///     fn read(fields: &Fields<'_>) -> Result<Self, ModuleError> {
///         let every = fields.require("every")?;
///         match every.duration()? {
///             std::time::Duration::ZERO => Err(every.error("it would never do anything else")),
///             every => Ok(TickIngress { every }),
///         }
///     }
/// }
///
/// let connectors = Connectors::new().with(|ticks: TickIngress| ticks.every);
/// let text = "{ kind: example.ticks/ingress, spec: { every: 5 s } }";
/// let module = Module::parse("module.yaml", text, &Placeholders::none(), &connectors).unwrap();
/// assert_eq!(module.connections()[0].value.as_secs(), 5);
///
/// let text = "{ kind: example.ticks/ingress, spec: { evry: 5 s } }";
/// let error = Module::parse("module.yaml", text, &Placeholders::none(), &connectors).unwrap_err();
/// assert_eq!((error.line(), error.column()), (1, 40));
/// ```
pub trait ConnectorSpec: Sized {
    /// The kind of component, `namespace/name`. Those that are named `ingress` are ingress, and those that are named
    /// `egress` egress.
    const KIND: &'static str;

    /// All fields that there can be. Another one is an error before anything is read.
    const FIELDS: &'static [&'static str];

    /// Reads the fields.
    ///
    /// # Errors
    ///
    /// If a field is missing, or is not what it should be.
    fn read(fields: &Fields<'_>) -> Result<Self, ModuleError>;

    /// Which ingress or egress it is. No two of either may have the same id. Default: it has none.
    fn id(&self) -> Option<&TypeName> {
        None
    }
}

/// The kinds of ingress and egress for which a program has connectors, and what it makes of each: a `C`.
///
/// Without one for them, `io.statefun.kafka.v1/ingress` and `egress` and `io.statefun.kinesis.v1/ingress` and `egress`
/// are read, and are an error that says that [there is no connector](Mistake::NoConnector).
pub struct Connectors<C> {
    kinds: BTreeMap<&'static str, Box<Read<C>>>,
}

type Read<C> = dyn Fn(&Node) -> Result<(Option<TypeName>, C), ModuleError>;

/// An ingress or egress of a module, for which the program has a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection<C> {
    /// Its kind.
    pub kind: TypeName,
    /// Which ingress or egress it is, if it says so.
    pub id: Option<TypeName>,
    /// What the program made of it.
    pub value: C,
    /// Where its id stands, or its kind if it has none.
    pub(super) place: Place,
}

impl<C> Connection<C> {
    /// An error about it, at its place: as a program says what a module alone does not show, such as a port that is
    /// taken.
    pub fn error(&self, why: impl Into<String>) -> ModuleError {
        ModuleError::new(&self.place, Mistake::Connector(why.into()))
    }
}

impl<C> Connectors<C> {
    /// No connectors.
    pub fn new() -> Self {
        Connectors { kinds: BTreeMap::new() }
    }

    /// Makes something of all components of a kind, instead of what was made of them before.
    #[must_use]
    pub fn with<S: ConnectorSpec>(mut self, make: impl Fn(S) -> C + 'static) -> Self {
        let read = move |node: &Node| read::<S>(node).map(|(id, spec)| (id, make(spec)));
        self.kinds.insert(S::KIND, Box::new(read));
        self
    }

    /// What the program makes of a component.
    pub(super) fn connect(
        &self,
        kind: &str,
        of_kind: &Node,
        spec: &Node,
    ) -> Result<Connection<C>, ModuleError> {
        let name = TypeName::new(kind).map_err(|_| {
            let (what, found) = (of_kind.what(), kind.to_owned());
            of_kind.mistake(Mistake::InvalidName { what, found })
        })?;
        if let Some(read) = self.kinds.get(kind) {
            let (id, value) = read(spec)?;
            let of_id = spec.entries()?.iter().find(|(key, _)| &*key.text == "id");
            let place = of_id.filter(|_| id.is_some()).map_or(&of_kind.place, |(_, id)| &id.place);
            return Ok(Connection { kind: name, id, value, place: place.clone() });
        }
        let id = match kind {
            KafkaIngress::KIND => read::<KafkaIngress>(spec)?.0,
            KafkaEgress::KIND => read::<KafkaEgress>(spec)?.0,
            KinesisIngress::KIND => read::<KinesisIngress>(spec)?.0,
            KinesisEgress::KIND => read::<KinesisEgress>(spec)?.0,
            _ => return Err(of_kind.mistake(self.unknown(kind))),
        };
        let id = id.map_or_else(String::new, |id| id.to_string());
        Err(of_kind.mistake(Mistake::NoConnector { kind: kind.to_owned(), id }))
    }

    fn unknown(&self, kind: &str) -> Mistake {
        let mut known = vec![V1, V2, KafkaIngress::KIND, KafkaEgress::KIND];
        known.extend([KinesisIngress::KIND, KinesisEgress::KIND]);
        known.extend(self.kinds.keys());
        known.sort_unstable();
        known.dedup();
        let nearest = nearest_of(kind, known.iter().copied());
        let known = known.into_iter().map(str::to_owned).collect();
        Mistake::UnknownKind { kind: kind.to_owned(), nearest, known }
    }
}

fn read<S: ConnectorSpec>(node: &Node) -> Result<(Option<TypeName>, S), ModuleError> {
    let spec = S::read(&node.fields(S::FIELDS)?)?;
    Ok((spec.id().cloned(), spec))
}

impl<C> Default for Connectors<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for Connectors<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connectors").field(&self.kinds.keys().collect::<Vec<_>>()).finish()
    }
}

/// Settings that go to a client as they are, in the order of their names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Those of a list of mappings, or none.
    pub(super) fn within(node: Option<&Node>) -> Result<Self, ModuleError> {
        let pairs = node.map_or_else(|| Ok(Vec::new()), Node::pairs)?;
        let texts =
            pairs.into_iter().map(|(key, node)| Ok((key.to_owned(), node.text()?.to_owned())));
        texts.collect::<Result<_, _>>().map(Properties)
    }

    /// A property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Says what a property is, whatever it was.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// Shows the names alone: values may be secrets.
impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where records of a topic, or of a stream, go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The name of the topic or stream.
    pub from: String,
    /// The type of its values.
    pub value_type: TypeName,
    /// The functions that get each record, at the id that is its key.
    pub targets: Vec<TypeName>,
}

impl Route {
    /// Those of a list that is not empty, of which each item has the field `from`.
    pub(super) fn all(node: &Node, from: &'static str) -> Result<Vec<Self>, ModuleError> {
        let mut routes: Vec<Route> = Vec::new();
        let mut lines = BTreeMap::new();
        for item in node.some_list()? {
            let fields = item.fields(&[from, "valueType", "targets"])?;
            let name = fields.require(from)?;
            let from = name.some_text()?.to_owned();
            if let Some(first_line) = lines.insert(from.clone(), name.line()) {
                return Err(name.mistake(Mistake::DuplicateKey { key: from, first_line }));
            }
            let value_type = fields.require("valueType")?.type_name()?;
            let targets = fields.require("targets")?.some_list()?.iter();
            let targets = targets.map(Node::type_name).collect::<Result<_, _>>()?;
            routes.push(Route { from, value_type, targets });
        }
        Ok(routes)
    }
}

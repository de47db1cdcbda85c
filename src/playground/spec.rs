//! What modules say of the playground: an ingress and an egress, each with a port.

use crate::modules::{ConnectorSpec, Fields, ModuleError};

/// When the ingress answers a record that was sent to it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ack {
    /// `durable`: with 200, when a snapshot that is durable holds the record. No failure can take it away then.
    #[default]
    Durable,
    /// `accepted`: with 202, at once. A program that is killed before its next snapshot loses it.
    Accepted,
}

/// `io.statefun.playground.v1/ingress`: records for functions, over HTTP.
///
/// ```
/// use timely_statefun::modules::{Connectors, Module, Placeholders};
/// use timely_statefun::playground::{Ack, IngressSpec};
///
/// let text = "{ kind: io.statefun.playground.v1/ingress, spec: { port: 8090 } }";
/// let connectors = Connectors::new().with(|ingress: IngressSpec| ingress);
/// let module = Module::parse("module.yaml", text, &Placeholders::none(), &connectors).unwrap();
/// let ingress = module.connections()[0].value;
/// assert_eq!((ingress.port, ingress.ack), (8090, Ack::Durable));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IngressSpec {
    /// Where it listens; 0 for a port that the system chooses.
    pub port: u16,
    /// When it answers. Not a field that StateFun knows. Default: `durable`.
    pub ack: Ack,
}

impl ConnectorSpec for IngressSpec {
    const KIND: &'static str = "io.statefun.playground.v1/ingress";
    const FIELDS: &'static [&'static str] = &["port", "ack"];

    fn read(fields: &Fields<'_>) -> Result<Self, ModuleError> {
        let port = port(fields)?;
        let ack = match fields.get("ack") {
            None => Ack::default(),
            Some(node) => match node.one_of(&["durable", "accepted"])? {
                "accepted" => Ack::Accepted,
                _ => Ack::Durable,
            },
        };
        Ok(IngressSpec { port, ack })
    }
}

/// `io.statefun.playground.v1/egress`: records of functions, over HTTP, by topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgressSpec {
    /// Where it listens; 0 for a port that the system chooses.
    pub port: u16,
    /// At least one topic, none of them twice.
    pub topics: Vec<String>,
}

impl ConnectorSpec for EgressSpec {
    const KIND: &'static str = "io.statefun.playground.v1/egress";
    const FIELDS: &'static [&'static str] = &["port", "topics"];

    fn read(fields: &Fields<'_>) -> Result<Self, ModuleError> {
        let port = port(fields)?;
        let mut topics: Vec<String> = Vec::new();
        for node in fields.require("topics")?.some_list()? {
            let topic = node.some_text()?;
            if topics.iter().any(|before| before == topic) {
                return Err(node.error(format!("topic \"{topic}\" is listed twice")));
            }
            topics.push(topic.to_owned());
        }
        Ok(EgressSpec { port, topics })
    }
}

fn port(fields: &Fields<'_>) -> Result<u16, ModuleError> {
    let port = fields.require("port")?.number(0..=u64::from(u16::MAX))?;
    Ok(u16::try_from(port).expect("it is within bounds"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::{Connectors, Module, Placeholders};

    #[derive(Debug, PartialEq)]
    enum Spec {
        Ingress(IngressSpec),
        Egress(EgressSpec),
    }

    fn read(kind: &str, spec: &str) -> Result<Spec, ModuleError> {
        let connectors = Connectors::new().with(Spec::Ingress).with(Spec::Egress);
        let text = format!("{{kind: io.statefun.playground.v1/{kind}, spec: {spec}}}");
        let module = Module::parse("module.yaml", &text, &Placeholders::none(), &connectors)?;
        let (_, mut connections) = module.into_parts();
        Ok(connections.remove(0).value)
    }

    #[test]
    fn modules_say_ports_topics_and_when_records_are_answered() {
        let ingress = |port, ack| Spec::Ingress(IngressSpec { port, ack });
        let topics = vec!["greetings".to_owned(), "7".to_owned()];
        for (kind, spec, found) in [
            ("ingress", "{port: 8090}", ingress(8090, Ack::Durable)),
            ("ingress", "{port: '0', ack: durable}", ingress(0, Ack::Durable)),
            ("ingress", "{port: 65535, ack: accepted}", ingress(65535, Ack::Accepted)),
            (
                "egress",
                "{port: 8091, topics: [greetings, 7]}",
                Spec::Egress(EgressSpec { port: 8091, topics }),
            ),
        ] {
            assert_eq!(read(kind, spec).unwrap(), found, "{spec}");
        }
        for (kind, spec, column, why) in [
            ("ingress", "{}", 49, "\"port\""),
            ("ingress", "{port: 65536}", 56, "65535"),
            ("ingress", "{port: 1, ack: never}", 64, "\"never\""),
            ("ingress", "{port: 1, topics: [a]}", 59, "\"topics\""),
            ("egress", "{port: 1}", 48, "\"topics\""),
            ("egress", "{port: 1, topics: []}", 66, "empty"),
            ("egress", "{port: 1, topics: [a, '']}", 70, "empty"),
            ("egress", "{port: 1, topics: [a, b, a]}", 73, "topic \"a\" is listed twice"),
        ] {
            let error = read(kind, spec).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(why), "{spec}: {told}");
            assert_eq!((error.line(), error.column()), (1, column), "{spec}: {told}");
        }
    }
}

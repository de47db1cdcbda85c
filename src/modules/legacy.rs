//! Modules of version 3.0: one document with all endpoints, ingresses and egresses.

use super::error::{Mistake, ModuleError};
use super::tree::Node;

/// Kinds that version 3.0 calls otherwise.
const KINDS: [(&str, &str); 5] = [
    ("http", super::endpoints::V1),
    ("io.statefun.kafka/ingress", "io.statefun.kafka.v1/ingress"),
    ("io.statefun.kafka/egress", "io.statefun.kafka.v1/egress"),
    ("io.statefun.kinesis/ingress", "io.statefun.kinesis.v1/ingress"),
    ("io.statefun.kinesis/egress", "io.statefun.kinesis.v1/egress"),
];

/// A component as today's modules have it: what says of which kind it is, the kind as it is called today, and the
/// spec.
pub(super) struct Component<'a> {
    pub(super) of_kind: &'a Node,
    pub(super) kind: String,
    pub(super) spec: Node,
}

/// The components of a module of version 3.0: endpoints, then ingresses, then egresses.
pub(super) fn components(document: &Node) -> Result<Vec<Component<'_>>, ModuleError> {
    let fields = document.fields(&["version", "module"])?;
    let version = fields.require("version")?;
    let written = version.as_text("a text")?;
    if &*written.filled != "3.0" {
        let found = written.written.to_string();
        return Err(version.mistake(Mistake::UnsupportedVersion { found }));
    }
    let module = fields.require("module")?.fields(&["meta", "spec"])?;
    module.require("meta")?.fields(&["type"])?.require("type")?.one_of(&["remote"])?;
    let spec = module.require("spec")?.fields(&["endpoints", "ingresses", "egresses"])?;
    let mut components = Vec::new();
    for (list, item, of_kind) in [
        ("endpoints", "endpoint", "kind"),
        ("ingresses", "ingress", "type"),
        ("egresses", "egress", "type"),
    ] {
        let nodes = spec.get(list).map_or(Ok(&[][..]), Node::list)?;
        for node in nodes {
            components.push(component(node, item, of_kind)?);
        }
    }
    Ok(components)
}

fn component<'a>(
    node: &'a Node,
    item: &'static str,
    of_kind: &'static str,
) -> Result<Component<'a>, ModuleError> {
    const ID: &str = "id";
    let fields = node.fields(&[item])?.require(item)?.fields(&["meta", "spec"])?;
    let is_endpoint = item == "endpoint";
    let known: &[_] = if is_endpoint { &[of_kind] } else { &[of_kind, ID] };
    let meta = fields.require("meta")?.fields(known)?;
    let of_kind = meta.require(of_kind)?;
    let kind = of_kind.some_text()?;
    let today = KINDS.iter().find(|(before, _)| *before == kind);
    let kind = today.map_or(kind, |(_, today)| today).to_owned();
    let mut spec = fields.require("spec")?.clone();
    if !is_endpoint {
        let id = meta.require(ID)?;
        // Its place is beside the type.
        if let Some((key, _)) = spec.entries()?.iter().find(|(key, _)| &*key.text == ID) {
            let mistake = Mistake::DuplicateKey { key: ID.to_owned(), first_line: id.line() };
            return Err(ModuleError::new(&key.place, mistake));
        }
        spec = spec.with_field(ID, id.clone());
    }
    Ok(Component { of_kind, kind, spec })
}

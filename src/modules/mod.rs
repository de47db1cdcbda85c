//! StateFun's `module.yaml`: where functions are served, and which ingress and egress there is. With the feature
//! `modules`.
//!
//! A module is read as a whole before anything is bound, and what is wrong with it is an error that names the file,
//! the line and the column. This room reads files of modules, passwords that they name, and nothing else: it opens no
//! connections, and knows neither loops nor snapshots. Which fields there are, with their defaults, and what is
//! different from StateFun, is [on a page of its own](crate::module_files).
//!
//! ```
//! use timely_statefun::modules::{Connectors, KafkaIngress, Module, Placeholders};
//! use timely_statefun::{Functions, TypedValue};
//!
//! let text = r#"
//! kind: io.statefun.endpoints.v2/http
//! spec:
//!   functions: example/*
//!   urlPathTemplate: http://${FUNCTIONS:localhost:8000}/statefun
//! ---
//! kind: io.statefun.kafka.v1/ingress
//! spec:
//!   id: example/names
//!   address: kafka:9092
//!   consumerGroupId: my-group-id
//!   topics:
//!     - topic: names
//!       valueType: io.statefun.types/string
//!       targets: [ example/person ]
//! "#;
//!
//! // What the program makes of the kinds of ingress and egress that it knows: here, of one kind, what it says.
//! let connectors = Connectors::new().with(|ingress: KafkaIngress| ingress);
//! let module = Module::parse("module.yaml", text, &Placeholders::environment(), &connectors)?;
//! assert_eq!(module.connections()[0].value.topics[0].from, "names");
//!
//! let runtime = tokio::runtime::Runtime::new().unwrap();
//! let functions: Functions<TypedValue> = module.bind(Functions::new())?;
//! functions.runtime(runtime.handle().clone()).check().unwrap();
//!
//! // Nobody knows this field.
//! let text = text.replace("urlPathTemplate", "urlPathTemplates");
//! let error = Module::parse("module.yaml", &text, &Placeholders::environment(), &connectors);
//! let error = error.unwrap_err();
//! assert_eq!((error.file(), error.line(), error.column()), ("module.yaml", 5, 3));
//! assert!(error.to_string().contains("did you mean \"urlPathTemplate\"?"));
//! # Ok::<(), timely_statefun::modules::ModuleError>(())
//! ```

mod connectors;
mod endpoints;
mod error;
mod file;
mod kafka;
mod kinesis;
mod legacy;
mod node;
mod placeholders;
mod time;
mod tree;

pub(crate) use time::duration;

use std::path::Path;

pub use connectors::{Connection, ConnectorSpec, Connectors, Properties, Route};
pub use endpoints::Endpoints;
pub use error::{Mistake, ModuleError};
pub use kafka::{AutoOffsetReset, KafkaDelivery, KafkaEgress, KafkaIngress, KafkaStartupPosition};
pub use kinesis::{
    AwsCredentials, AwsRegion, KinesisEgress, KinesisIngress, KinesisStartupPosition,
};
pub use node::Fields;
pub use placeholders::Placeholders;
pub use tree::Node;

use crate::functions::Functions;
use crate::typed::TypedMessage;

/// What modules say: endpoints of functions, and ingress and egress of which a program has made a `C` each.
#[derive(Clone, Debug)]
pub struct Module<C> {
    endpoints: Endpoints,
    connections: Vec<Connection<C>>,
}

impl<C> Module<C> {
    /// Reads a module, which is any number of YAML documents; `file` is what errors call it.
    ///
    /// # Errors
    ///
    /// The first mistake in it.
    pub fn parse(
        file: &str,
        text: &str,
        placeholders: &Placeholders,
        connectors: &Connectors<C>,
    ) -> Result<Self, ModuleError> {
        let mut module = Module { endpoints: Endpoints::default(), connections: Vec::new() };
        for document in tree::documents(file, text, placeholders)? {
            module.add_document(&document, connectors)?;
        }
        Ok(module)
    }

    /// Reads a module from a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read; otherwise the first mistake in it.
    pub fn read(
        path: impl AsRef<Path>,
        placeholders: &Placeholders,
        connectors: &Connectors<C>,
    ) -> Result<Self, ModuleError> {
        let path = path.as_ref();
        let text = file::module(path)?;
        Self::parse(&path.to_string_lossy(), &text, placeholders, connectors)
    }

    /// Adds another module, as if both were in one file.
    ///
    /// # Errors
    ///
    /// If functions, or ids, of the other are there already, at their place in the other.
    pub fn and(mut self, other: Module<C>) -> Result<Self, ModuleError> {
        self.endpoints.extend(other.endpoints)?;
        other.connections.into_iter().try_for_each(|connection| self.add_connection(connection))?;
        Ok(self)
    }

    /// Where functions are served.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Ingress and egress, in the order of the modules.
    pub fn connections(&self) -> &[Connection<C>] {
        &self.connections
    }

    /// Where functions are served, for the workers of a program, and its ingress and egress.
    pub fn into_parts(self) -> (Endpoints, Vec<Connection<C>>) {
        (self.endpoints, self.connections)
    }

    /// Binds all functions that are served somewhere.
    ///
    /// # Errors
    ///
    /// As for [`Endpoints::bind`].
    pub fn bind<M, T>(&self, functions: Functions<M, T>) -> Result<Functions<M, T>, ModuleError>
    where
        M: TypedMessage + 'static,
        T: Clone + PartialEq + 'static,
    {
        self.endpoints.bind(functions)
    }

    fn add_document(
        &mut self,
        document: &Node,
        connectors: &Connectors<C>,
    ) -> Result<(), ModuleError> {
        let not_a_component = || document.mistake(Mistake::NotAComponent);
        let entries = document.entries().map_err(|_| not_a_component())?;
        let has = |field| entries.iter().any(|(key, _)| &*key.text == field);
        if has("version") {
            for component in legacy::components(document)? {
                let legacy::Component { of_kind, kind, spec } = component;
                self.add(&kind, of_kind, &spec, connectors)?;
            }
            return Ok(());
        }
        if !has("kind") && !has("spec") {
            return Err(not_a_component());
        }
        let fields = document.fields(&["kind", "spec"])?;
        let of_kind = fields.require("kind")?;
        self.add(of_kind.some_text()?, of_kind, fields.require("spec")?, connectors)
    }

    fn add(
        &mut self,
        kind: &str,
        of_kind: &Node,
        spec: &Node,
        connectors: &Connectors<C>,
    ) -> Result<(), ModuleError> {
        if matches!(kind, endpoints::V1 | endpoints::V2) {
            return self.endpoints.add(kind, spec);
        }
        let connection = connectors.connect(kind, of_kind, spec)?;
        self.add_connection(connection)
    }

    fn add_connection(&mut self, connection: Connection<C>) -> Result<(), ModuleError> {
        let is_it = |before: &&Connection<C>| {
            before.id.is_some()
                && before.id == connection.id
                && before.kind.name() == connection.kind.name()
        };
        if let (Some(first), Some(id)) = (self.connections.iter().find(is_it), &connection.id) {
            let (id, first) = (id.to_string(), first.place.to_string());
            return Err(ModuleError::new(&connection.place, Mistake::DuplicateId { id, first }));
        }
        self.connections.push(connection);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

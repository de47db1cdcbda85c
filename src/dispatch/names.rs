//! Function types as small numbers: names are compared once, where a message enters or is sent.

use std::collections::HashMap;
use std::sync::Arc;

use smol_str::SmolStr;

use super::{Head, NOBODY, Routed, TypeIndex};
use crate::address::{Address, Id, TypeName};
use crate::message::Envelope;
use crate::placement;

/// How many constants are remembered by where their text is. A power of two.
const REMEMBERED: usize = 64;

/// The numbers of function types on one worker.
#[derive(Clone)]
pub(crate) struct Names {
    names: Vec<TypeName>,
    by_name: HashMap<TypeName, TypeIndex>,
    /// How many are the same on every worker.
    shared: TypeIndex,
    /// The number of the function that each type is bound to: the types bound by themselves come
    /// first, then the namespaces. Those bound to nothing have [`NOBODY`].
    functions: Vec<u32>,
    namespaces: Vec<SmolStr>,
    /// Constants by the address and length of their text, which never changes under them.
    constants: Box<[(usize, usize, TypeIndex); REMEMBERED]>,
}

impl Names {
    /// Numbers the function types that are bound by themselves, in the order given.
    pub(crate) fn new(bound: impl Iterator<Item = TypeName>, namespaces: Vec<SmolStr>) -> Self {
        let mut names = Names {
            names: Vec::new(),
            by_name: HashMap::new(),
            shared: 0,
            functions: Vec::new(),
            namespaces,
            constants: Box::new([(0, 0, NOBODY); REMEMBERED]),
        };
        for name in bound {
            names.index(&name);
        }
        names.shared = names.names.len() as TypeIndex;
        names.functions = (0..names.shared).collect();
        names
    }

    /// The number of the function that a type is bound to.
    #[inline]
    pub(crate) fn function(&self, index: TypeIndex) -> u32 {
        self.functions[index as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn name(&self, index: TypeIndex) -> TypeName {
        self.names[index as usize].clone()
    }

    pub(super) fn known(&self, index: TypeIndex) -> &TypeName {
        &self.names[index as usize]
    }

    /// The number of the function that a type would be bound to, whether or not it was ever seen here.
    #[cfg(feature = "serve")]
    pub(super) fn bound_to(&self, name: &TypeName) -> Option<usize> {
        if let Some(index) = self.by_name.get(name) {
            return Some(self.functions[*index as usize])
                .filter(|f| *f != NOBODY)
                .map(|f| f as usize);
        }
        let namespace = self.namespaces.iter().position(|namespace| namespace == name.namespace());
        namespace.map(|at| self.shared as usize + at)
    }

    /// The number of a name, which is new if it was never seen here.
    pub(crate) fn index(&mut self, name: &TypeName) -> TypeIndex {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.names.len() as TypeIndex;
        let namespace = self.namespaces.iter().position(|namespace| namespace == name.namespace());
        self.functions.push(namespace.map_or(NOBODY, |at| self.shared + at as u32));
        self.names.push(name.clone());
        self.by_name.insert(name.clone(), index);
        index
    }

    /// The number of a constant name.
    #[inline]
    pub(crate) fn constant(&mut self, name: &'static str) -> TypeIndex {
        let (at, len) = (name.as_ptr() as usize, name.len());
        let place = (at >> 2 ^ at >> 8) & (REMEMBERED - 1);
        let (known_at, known_len, index) = self.constants[place];
        if (known_at, known_len) == (at, len) {
            return index;
        }
        let index = self.index(&TypeName::fixed(name));
        self.constants[place] = (at, len, index);
        index
    }

    /// The names that must travel with a message because their numbers mean nothing elsewhere.
    #[inline]
    pub(crate) fn travelling(
        &self,
        target: TypeIndex,
        caller: TypeIndex,
    ) -> Option<Arc<(TypeName, Option<TypeName>)>> {
        let local = |index| index >= self.shared && index != NOBODY;
        (local(target) || local(caller)).then(|| {
            let caller = (caller != NOBODY).then(|| self.name(caller));
            Arc::new((self.name(target), caller))
        })
    }

    /// An ingress record on its way into the loop.
    pub(crate) fn route<M>(&mut self, envelope: Envelope<M>) -> Routed<M> {
        let Envelope { target, caller, message, .. } = envelope;
        Routed { head: self.head(target, caller), message }
    }

    /// The head of a message that no other message caused.
    pub(crate) fn head(&mut self, target: Address, caller: Option<Address>) -> Head {
        let target_type = self.index(&target.function_type);
        let (caller_type, caller) = match caller {
            Some(caller) => (self.index(&caller.function_type), caller.id),
            None => (NOBODY, Id::from(0)),
        };
        Head {
            target_type,
            caller_type,
            depth: 0,
            function: self.function(target_type),
            again: false,
            hash: placement::hash(&target.id),
            target: target.id,
            caller,
            names: self.travelling(target_type, caller_type),
        }
    }

    /// The name of a caller's type, wherever the message comes from.
    pub(crate) fn caller_name<'a>(&'a self, head: &'a Head) -> Option<&'a TypeName> {
        match &head.names {
            Some(names) => names.1.as_ref(),
            None => self.names.get(head.caller_type as usize),
        }
    }

    pub(crate) fn target(&self, head: &Head) -> Address {
        Address { function_type: self.name(head.target_type), id: head.target.clone() }
    }

    pub(crate) fn caller(&self, head: &Head) -> Option<Address> {
        (head.caller_type != NOBODY).then(|| Address {
            function_type: self.name(head.caller_type),
            id: head.caller.clone(),
        })
    }
}

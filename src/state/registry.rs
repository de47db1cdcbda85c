//! State that declares itself when it is first used.
//!
//! A registration is part of the invocation in which it happens: it lasts if that succeeds.

use std::collections::HashMap;

use super::declared::{Declared, Wanted};
use crate::dead_letter::Reason;

pub(super) struct Registry {
    states_max: usize,
    /// The columns of the states that were registered.
    columns: HashMap<String, usize>,
    /// How many of them are there to stay.
    settled: usize,
}

impl Registry {
    pub(super) fn new(states_max: usize) -> Self {
        Registry { states_max, columns: HashMap::new(), settled: 0 }
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.columns.get(name).copied()
    }

    /// Registers a state that is not there, which will have the column of this number.
    ///
    /// # Errors
    ///
    /// If its names or its expiration are not valid, or if there are too many.
    pub(super) fn register(
        &mut self,
        wanted: &Wanted<'_>,
        column: usize,
    ) -> Result<Declared, Box<Reason>> {
        let declared = Declared::owned(wanted);
        declared.check().map_err(|error| Reason::InvalidState(error.to_string()))?;
        if self.columns.len() >= self.states_max {
            return Err(Box::new(Reason::TooManyStates(self.states_max)));
        }
        self.columns.insert(wanted.name.to_owned(), column);
        Ok(declared)
    }

    /// Registers a state that is stored and has this column. It is there to stay.
    ///
    /// # Errors
    ///
    /// As for [`register`](Self::register).
    pub(super) fn adopt(
        &mut self,
        wanted: &Wanted<'_>,
        column: usize,
    ) -> Result<Declared, Box<Reason>> {
        let declared = self.register(wanted, column)?;
        self.settled += 1;
        Ok(declared)
    }

    /// Undoes an [`adopt`](Self::adopt).
    pub(super) fn give_up(&mut self, name: &str) {
        self.columns.remove(name);
        self.settled -= 1;
    }

    pub(super) fn commit(&mut self) {
        self.settled = self.columns.len();
    }

    /// Forgets what was registered since the last commit, of which it says how much it was. It has
    /// the columns of the highest numbers.
    pub(super) fn rollback(&mut self, columns: usize) -> usize {
        let new = self.columns.len() - self.settled;
        if new > 0 {
            self.columns.retain(|_, column| *column < columns - new);
        }
        new
    }
}

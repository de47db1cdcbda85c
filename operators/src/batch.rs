//! Records on their way out of an operator, gathered for one capability at a time.
//!
//! A batch keeps the order of its records: where the next one needs another capability, what was
//! gathered leaves first.

use timely::container::{CapacityContainerBuilder, buffer};
use timely::dataflow::operators::generic::OutputBuilderSession;
use timely::progress::Timestamp;

use crate::engine::Ship;
use crate::gate::LoopTime;
use crate::holdings::Holdings;
use crate::record::Record;
use crate::stages::Stage;

/// An output of the loop in one activation.
pub(crate) type Session<'a, T, R> =
    OutputBuilderSession<'a, LoopTime<T>, CapacityContainerBuilder<Vec<R>>>;

/// Records for one output port.
pub(crate) struct Batch<'a, 'b, T: Timestamp, R: 'static, const PORTS: usize> {
    holdings: &'b Holdings<T, PORTS>,
    port: usize,
    output: &'b mut Session<'a, T, R>,
    at: Option<usize>,
    records: Vec<R>,
}

impl<'a, 'b, T: Timestamp, R: 'static, const PORTS: usize> Batch<'a, 'b, T, R, PORTS> {
    pub(crate) fn new(
        holdings: &'b Holdings<T, PORTS>,
        port: usize,
        output: &'b mut Session<'a, T, R>,
    ) -> Self {
        Batch { holdings, port, output, at: None, records: Vec::new() }
    }

    /// Adds a record of time `time`.
    pub(crate) fn push(&mut self, time: &T, record: R) {
        let at = self.holdings.travelling(time, self.at);
        let full = self.records.len() >= buffer::default_capacity::<R>();
        if full || self.at.is_some_and(|before| before != at) {
            self.flush();
        }
        self.at = Some(at);
        if self.records.capacity() == 0 {
            self.records.reserve(buffer::default_capacity::<R>());
        }
        self.records.push(record);
    }

    /// Adds all records, whose times `time` tells.
    pub(crate) fn append(&mut self, records: &mut Vec<R>, time: impl Fn(&R) -> &T) {
        if self.holdings.only_one() {
            self.flush();
            self.output.session(self.holdings.capability(0, self.port)).give_container(records);
            records.clear();
        } else {
            for record in records.drain(..) {
                let at = self.holdings.travelling(time(&record), self.at);
                if self.at.is_some_and(|before| before != at) {
                    self.flush();
                }
                self.at = Some(at);
                self.records.push(record);
            }
            self.flush();
        }
    }

    /// Sends what was gathered.
    pub(crate) fn flush(&mut self) {
        if let Some(at) = self.at.take()
            && !self.records.is_empty()
        {
            let capability = self.holdings.capability(at, self.port);
            self.output.session(capability).give_container(&mut self.records);
            self.records.clear();
        }
    }
}

impl<T: Timestamp, M: 'static, const PORTS: usize> Ship<T, M>
    for Batch<'_, '_, T, Record<T, M>, PORTS>
{
    fn ship(&mut self, records: &mut Vec<Record<T, M>>, stage: Option<&Stage<T>>) {
        match stage {
            None => self.append(records, |record| &record.time),
            Some(stage) => {
                let capability = self.holdings.at_stage(stage, self.port);
                self.output.session(&capability).give_container(records);
                records.clear();
            }
        }
    }
}

//! Who the processes of a program are, as one of them is told. Nothing here connects them.

use std::ops::Range;

use timely::CommunicationConfig;

use super::error::{Kind, Peer};

/// The processes of a program, one of which this is.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The number of this process.
    pub(super) process: usize,
    /// Workers of each process.
    pub(super) workers: usize,
    /// Where each process listens; one that does so in several places has a space between them.
    pub(super) addresses: Vec<String>,
    /// Whether it is told how connecting goes.
    pub(super) report: bool,
    /// What the program says that all its processes must have in common.
    pub(super) fingerprint: u64,
}

/// How the workers of one process reach one another.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// There is one, which needs no other.
    Alone,
    /// Messages are moved.
    Moved,
    /// Messages are bytes, as between processes.
    Bytes,
}

impl Cluster {
    /// What timely's configuration says, if it can be so.
    pub(super) fn of(
        config: CommunicationConfig,
        fingerprint: u64,
    ) -> Result<(Within, Self), Kind> {
        let alone = |workers| {
            let (process, addresses, report) = (0, Vec::new(), false);
            Cluster { process, workers, addresses, report, fingerprint }
        };
        let (within, cluster) = match config {
            CommunicationConfig::Thread => (Within::Alone, alone(1)),
            CommunicationConfig::Process(workers) => (Within::Moved, alone(workers)),
            CommunicationConfig::ProcessBinary(workers) => (Within::Bytes, alone(workers)),
            CommunicationConfig::Cluster { threads, process, addresses, report, zerocopy } => {
                let cluster = Cluster { process, workers: threads, addresses, report, fingerprint };
                cluster.check_addresses().map_err(Kind::Config)?;
                (if zerocopy { Within::Bytes } else { Within::Moved }, cluster)
            }
        };
        if cluster.workers == 0 {
            return Err(Kind::Config("a process has at least one worker".to_owned()));
        }
        Ok((within, cluster))
    }

    fn check_addresses(&self) -> Result<(), String> {
        let (process, processes) = (self.process, self.addresses.len());
        if process >= processes {
            let last = processes.saturating_sub(1);
            return Err(match processes {
                0 => "there are no processes".to_owned(),
                _ => format!("there is no process {process}: they are 0 to {last}"),
            });
        }
        let mut known: Vec<(&str, usize)> = Vec::new();
        for (process, addresses) in self.addresses.iter().enumerate() {
            let mut some = false;
            for address in addresses.split_whitespace() {
                some = true;
                let (host, port) = address.rsplit_once(':').unwrap_or_default();
                if host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
                    return Err(format!(
                        "the address \"{address}\" of process {process} is not \"host:port\""
                    ));
                }
                if let Some((_, other)) = known.iter().find(|(known, _)| *known == address) {
                    return Err(format!(
                        "the address \"{address}\" is that of process {other} and of process {process}"
                    ));
                }
                known.push((address, process));
            }
            if !some {
                return Err(format!("process {process} has no address"));
            }
        }
        Ok(())
    }

    /// The process with this number, as it is shown.
    pub(super) fn peer(&self, process: usize) -> Peer {
        Peer { process, address: self.addresses[process].clone() }
    }

    pub(super) fn processes(&self) -> usize {
        self.addresses.len().max(1)
    }

    /// The numbers that the workers of this process have among all.
    pub(super) fn own_workers(&self) -> Range<usize> {
        let first = self.process * self.workers;
        first..first + self.workers
    }
}

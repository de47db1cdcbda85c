//! The log of manifests: which execution owns the store, and which snapshots count.
//!
//! Every entry takes the next slot, and a slot is taken once. An execution claims one, which is its
//! number, and commits its cuts into the slots that follow. Whoever finds its next slot taken by
//! another is fenced and must stop. After an entry is stored the log is looked at again: one that wakes
//! after its slots were taken *and deleted* stores its entry all right, and sees newer ones above it.
//!
//! What counts is decided by those above: each entry says below which slot nothing counts any more (its
//! floor), and a commit does not count where a newer execution is known to have begun before it. What counts
//! below the floor are [savepoints].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::error::{Kind, SnapshotError};
use super::files::{Created, Files, chance};
use super::manifest::{Claim, Commit, Entry, Header, Link, slot_file};
use super::part::PartEntry;
use super::savepoints::{self, Named};
use super::survey::{Identity, Survey, read, slots};

/// How much is kept and built upon.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Keeping {
    /// How many snapshots, at least 1.
    pub(crate) snapshots: usize,
    /// How many cuts one snapshot may consist of, at least 1.
    pub(crate) chain_max: usize,
}

/// A cut that is durable.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) slot: u64,
    pub(crate) cut: u64,
}

/// What an execution has to say of a cut.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) cut: u64,
    /// The cut it is an increment of. `None`: it is full.
    pub(crate) base: Option<u64>,
    pub(crate) parts: Vec<PartEntry>,
    /// The held egress of cuts before it that is not acknowledged, by cut, in order.
    pub(crate) held: Vec<Link>,
    pub(crate) notes: BTreeMap<String, Bytes>,
    pub(crate) at_ms: u64,
}

/// The log, in the hands of the execution that has claimed it.
pub(crate) struct Log {
    files: Files,
    identity: Identity,
    keeping: Keeping,
    execution: u64,
    nonce: u128,
    next_slot: u64,
    first_cut: u64,
    floor: u64,
    /// What an increment builds upon: the last cut that this execution knows to be committed, or what
    /// it has restored. Empty: the next cut must be full.
    chain: Vec<Link>,
    /// The slot of what was restored.
    restored: Option<u64>,
    /// The slots of the newest commits that count, newest first.
    kept: Vec<u64>,
    /// How many of them are this execution's own.
    own: usize,
    /// The savepoints, as the newest commit says.
    savepoints: Vec<Named>,
    /// The slots of those among them that are given up, so that the next one leaves them out.
    given_up: BTreeSet<u64>,
    last: Option<Committed>,
    fenced: Option<SnapshotError>,
}

impl Log {
    /// Claims the log for a new execution, which restores a snapshot of it, or begins without any.
    ///
    /// # Errors
    ///
    /// Fenced, if somebody else has claimed it since it was surveyed. Overtaken, if an older execution has
    /// committed a cut since: there is something newer to begin with. Foreign, if it belongs to another
    /// program. If the store failed, the claim may be there nevertheless; the next execution goes above
    /// it.
    pub(super) async fn claim(
        files: Files,
        identity: Identity,
        keeping: Keeping,
        survey: &Survey,
        restores: Option<&Commit>,
        at_ms: u64,
    ) -> Result<Self, SnapshotError> {
        if let Some(foreign) = &survey.foreign {
            return Err(foreign.clone());
        }
        let slot = survey.newest + 1;
        let nonce = u128::from(chance()) << 64 | u128::from(chance());
        let first_cut = survey.first_cut();
        let header = Header {
            slot,
            execution: slot,
            nonce,
            program: identity.program.clone(),
            bins: identity.bins,
            floor: survey.floor,
            at_ms,
        };
        let restored = restores.map(|commit| (commit.header.slot, commit.cut()));
        let claim = Claim { header, restores: restored, first_cut };
        // An older execution that still runs deletes what no snapshot needs that is as new as its own
        // last one. So only upon the newest can be built.
        let newest = restores.filter(|commit| commit.header.slot == survey.newest_commit);
        let mut log = Log {
            files,
            identity,
            keeping,
            execution: slot,
            nonce,
            next_slot: slot,
            first_cut,
            floor: survey.floor,
            chain: newest.map(|commit| commit.chain.clone()).unwrap_or_default(),
            restored: restored.map(|(slot, _)| slot),
            kept: survey.kept.clone(),
            own: 0,
            savepoints: survey.savepoints.clone(),
            given_up: BTreeSet::new(),
            last: None,
            fenced: None,
        };
        let entry = Entry::Claim(claim);
        let created = log.files.create(&slot_file(slot), entry.bytes()).await?;
        #[cfg(statefun_planted)]
        crate::planted::reach("claimed");
        match created {
            Created::New => {}
            Created::Exists => match read(&log.files, slot).await? {
                // The reply was lost, but not the entry.
                Some(there) if there == entry => {}
                Some(Entry::Commit(there)) if there.header.execution < slot => {
                    return Err(Kind::Overtaken { file: slot_file(slot) }.into());
                }
                _ => return Err(log.fence(slot)),
            },
        }
        log.confirm(slot).await?;
        log.next_slot += 1;
        Ok(log)
    }

    /// Its number, by which its parts are named.
    pub(crate) fn execution(&self) -> u64 {
        self.execution
    }

    /// The number of its first cut. Later ones are higher.
    pub(crate) fn first_cut(&self) -> u64 {
        self.first_cut
    }

    /// The last cut that it has committed.
    pub(crate) fn last(&self) -> Option<Committed> {
        self.last
    }

    /// Below which slot nothing is needed any more, as its last commit says.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// The slots of savepoints, which are needed below the floor as well.
    pub(super) fn savepoint_slots(&self) -> impl Iterator<Item = u64> {
        self.savepoints.iter().map(|named| named.slot)
    }

    /// Takes note of the savepoints that are given up.
    pub(super) fn give_up(&mut self, slots: impl IntoIterator<Item = u64>) {
        self.given_up.extend(slots);
    }

    /// Whether a cut may be committed as a savepoint of this name.
    ///
    /// # Errors
    ///
    /// Taken, if there is one. If the store fails, it is not known.
    pub(super) async fn check_name(&mut self, name: &str) -> Result<(), SnapshotError> {
        let given_up = savepoints::given_up(&self.files).await?;
        self.give_up(given_up);
        self.is_free(name)
    }

    fn is_free(&self, name: &str) -> Result<(), SnapshotError> {
        let mut named = self.savepoints.iter().filter(|named| named.name == name);
        match named.any(|named| !self.given_up.contains(&named.slot)) {
            true => Err(Kind::SavepointTaken { name: name.to_owned() }.into()),
            false => Ok(()),
        }
    }

    /// The savepoints that there are with this commit.
    fn savepoints_at(&self, slot: u64, cut: u64, name: Option<&str>) -> Vec<Named> {
        // What was restored is needed as long as `floor_at` says, also if it is given up.
        let restored = self.restored.filter(|_| self.own + 1 < self.keeping.snapshots);
        let stays =
            |named: &&Named| !self.given_up.contains(&named.slot) || restored == Some(named.slot);
        let own = name.map(|name| Named { slot, cut, name: name.to_owned() });
        self.savepoints.iter().filter(stays).cloned().chain(own).collect()
    }

    /// The cut that the next one can be an increment of. `None`: the next cut must be full, since there
    /// is none, or the chain is as long as chains may be, or its increments weigh more than what they
    /// build upon.
    pub(crate) fn base(&self) -> Option<u64> {
        let (full, increments) = self.chain.split_first()?;
        let weight: u64 = increments.iter().map(Link::bytes).sum();
        let short = self.chain.len() < self.keeping.chain_max && weight <= full.bytes();
        short.then(|| increments.last().unwrap_or(full).cut)
    }

    /// Makes a cut durable, all of whose parts are stored. When this returns `Ok`, it counts, and what
    /// was held back for it may be released.
    ///
    /// # Errors
    ///
    /// Fenced: nothing of this execution counts any more. Refused: the cut does not follow. Taken: there is
    /// a savepoint of the name that it asks for. If the store
    /// failed, the cut may count or not, and nothing may be released; try again with the same cut, or
    /// go on with a later one, whose base is the last that is known.
    pub(crate) async fn commit(&mut self, cut: Cut) -> Result<Committed, SnapshotError> {
        if let Some(fenced) = &self.fenced {
            return Err(fenced.clone());
        }
        let chain = self.chain_of(&cut)?;
        let Cut { cut, parts, mut notes, at_ms, mut held, .. } = cut;
        held.extend(Link::held(self.execution, cut, &parts));
        let name = notes.remove(savepoints::NAME);
        let name = name.map(|name| String::from_utf8_lossy(&name).into_owned());
        name.iter().try_for_each(|name| self.is_free(name))?;
        let names: Vec<_> = parts.iter().map(|part| part.name.to_string()).collect();
        self.files.settle(names.iter().map(String::as_str)).await?;
        #[cfg(statefun_planted)]
        crate::planted::reach("parts-stored");
        loop {
            let slot = self.next_slot;
            let header = Header {
                slot,
                execution: self.execution,
                nonce: self.nonce,
                program: self.identity.program.clone(),
                bins: self.identity.bins,
                floor: self.floor_at(slot),
                at_ms,
            };
            let floor = header.floor;
            let savepoints = self.savepoints_at(slot, cut, name.as_deref());
            let mut notes = notes.clone();
            let note = Named::note(&savepoints);
            notes.extend(note.map(|note| (savepoints::NOTE.to_owned(), note)));
            let commit = Commit { header, chain: chain.clone(), notes, held: held.clone() };
            let bytes = Entry::Commit(commit.clone()).bytes();
            if self.files.create(&slot_file(slot), bytes).await? == Created::Exists {
                match read(&self.files, slot).await? {
                    // The reply was lost, but not the entry.
                    Some(Entry::Commit(there)) if same(&there, &commit) => {}
                    // A cut that was given up has become durable after all. It was never released.
                    Some(Entry::Commit(there)) if there.header.nonce == self.nonce => {
                        self.keep(slot);
                        continue;
                    }
                    #[cfg(statefun_planted)]
                    Some(_) if crate::planted::is("no-fencing") => {
                        self.next_slot += 1;
                        continue;
                    }
                    _ => return Err(self.fence(slot)),
                }
            }
            #[cfg(statefun_planted)]
            crate::planted::reach("manifest-written");
            #[cfg(statefun_planted)]
            if chain.len() == 1 && !self.chain.is_empty() {
                crate::planted::reach("full-again");
            }
            self.confirm(slot).await?;
            #[cfg(statefun_planted)]
            crate::planted::reach("manifest-confirmed");
            self.keep(slot);
            self.chain = chain;
            self.floor = floor;
            self.savepoints = savepoints;
            self.first_cut = cut + 1;
            let committed = Committed { slot, cut };
            self.last = Some(committed);
            return Ok(committed);
        }
    }

    /// What a cut consists of, if it follows from what is committed.
    fn chain_of(&self, cut: &Cut) -> Result<Vec<Link>, SnapshotError> {
        let refused = |why: String| Err(Kind::Refused { cut: cut.cut, why }.into());
        if cut.cut < self.first_cut {
            return refused(format!("cuts have reached {} already", self.first_cut));
        }
        let mut chain = match cut.base {
            None => Vec::new(),
            Some(base) if self.base() == Some(base) => self.chain.clone(),
            Some(base) => {
                return refused(match self.base() {
                    Some(last) => format!("it is an increment of cut {base}, not of cut {last}"),
                    None => format!("it is an increment of cut {base}, and must be full"),
                });
            }
        };
        let mut parts = cut.parts.clone();
        parts.sort_by_key(|part| part.name);
        for (at, part) in parts.iter().enumerate() {
            let own = (part.name.execution, part.name.cut) == (self.execution, cut.cut);
            if !own || parts[..at].last().is_some_and(|last| last.name == part.name) {
                return refused(format!("part \"{}\" is not its own, or twice", part.name));
            }
        }
        parts.retain(|part| !part.name.is_held());
        chain.push(Link { execution: self.execution, cut: cut.cut, parts });
        Ok(chain)
    }

    /// Below which slot nothing is needed once there is a commit in this one.
    fn floor_at(&self, slot: u64) -> u64 {
        let kept = self.kept.iter().take(self.keeping.snapshots.saturating_sub(1));
        // Until there are enough snapshots that came of it, what was restored is needed as well.
        let restored = self.restored.filter(|_| self.own + 1 < self.keeping.snapshots);
        let oldest = kept.copied().chain(restored).min().unwrap_or(slot);
        oldest.max(self.floor)
    }

    fn keep(&mut self, slot: u64) {
        self.kept.insert(0, slot);
        self.kept.truncate(self.keeping.snapshots);
        self.own += 1;
        self.next_slot = slot + 1;
    }

    /// Whether an entry that was stored is the newest one.
    async fn confirm(&mut self, slot: u64) -> Result<(), SnapshotError> {
        self.files.settle([slot_file(slot).as_str()]).await?;
        #[cfg(statefun_planted)]
        if crate::planted::is("no-fencing") {
            return Ok(());
        }
        match slots(&self.files).await?.range(slot + 1..).next_back() {
            Some(newer) => Err(self.fence(*newer)),
            None => Ok(()),
        }
    }

    /// This execution is over.
    pub(super) fn fence(&mut self, slot: u64) -> SnapshotError {
        let fenced = Kind::Fenced { execution: self.execution, file: slot_file(slot) };
        self.fenced.insert(fenced.into()).clone()
    }
}

/// Whether they are the same commit, at whatever time it was tried.
fn same(there: &Commit, commit: &Commit) -> bool {
    let at_ms = commit.header.at_ms;
    let header = Header { at_ms, ..there.header.clone() };
    let there = (header, &there.chain, &there.notes, &there.held);
    there == (commit.header.clone(), &commit.chain, &commit.notes, &commit.held)
}

//! What a plan's commands must add up to, read off the commands alone: no function is asked.

use crate::commands::{Command, Commands, SourceCommand};
use crate::generator::Plan;

/// The consequences of commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracker {
    /// Increments, for each instance.
    pub counts: Vec<i64>,
    /// Messages that instances are told, whoever sends them.
    pub told: u64,
    /// Records that are emitted and discarded.
    pub discards: u64,
}

impl Tracker {
    /// Everything that is to happen.
    pub fn of(plan: &Plan) -> Self {
        let counts = vec![0; plan.instances as usize];
        let mut tracker = Tracker { counts, ..Tracker::default() };
        (0..plan.messages).for_each(|number| tracker.apply(&plan.message(number)));
        tracker
    }

    /// The increments of all instances.
    pub fn increments(&self) -> i64 {
        self.counts.iter().sum()
    }

    /// Adds the consequences of a message.
    pub fn apply(&mut self, message: &SourceCommand) {
        self.tell(message.target, &message.commands);
    }

    fn tell(&mut self, instance: i32, commands: &Commands) {
        self.told += 1;
        for command in &commands.0 {
            match command {
                Command::Increment => self.counts[instance as usize] += 1,
                Command::SendEgress => self.discards += 1,
                Command::Send { target, commands } => self.tell(*target, commands),
                Command::AsyncOperation { resolved, .. } => self.tell(instance, resolved),
                Command::SendAfter { target, commands: later, token } => {
                    let is_it = |other: &Command| matches!(other, Command::CancelSendAfter { token: of, .. } if of == token);
                    if token.is_empty() || !commands.0.iter().any(is_it) {
                        self.tell(*target, later);
                    }
                }
                Command::CancelSendAfter { .. } | Command::Verify { .. } => {}
            }
        }
    }
}

/// Whether a message increments anything.
pub fn counts(commands: &Commands) -> bool {
    commands.0.iter().any(|command| match command {
        Command::Increment => true,
        Command::Send { commands, .. }
        | Command::SendAfter { commands, .. }
        | Command::AsyncOperation { resolved: commands, .. } => counts(commands),
        Command::SendEgress | Command::CancelSendAfter { .. } | Command::Verify { .. } => false,
    })
}

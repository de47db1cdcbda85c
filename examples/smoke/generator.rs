//! Makes random commands: each message of a plan by itself, from nothing but the plan and its number.
//!
//! It does not know what the commands add up to.

use crate::commands::{Command, Commands, SourceCommand};

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    /// How many messages enter.
    pub messages: u64,
    /// How many instances there are.
    pub instances: u64,
    /// How deep commands may be within commands.
    pub depth: u64,
    /// Whether the interpreter is part of the program.
    pub embedded: bool,
    /// Whether there are asynchronous operations and cancellations, which StateFun's own interpreters in other
    /// languages do not know.
    pub operations: bool,
}

/// What can be drawn, and how often, in hundredths: as StateFun's generator has it.
#[derive(Clone, Copy)]
enum Drawn {
    Increment,
    Send,
    SendAfter,
    Nothing,
    SendEgress,
    AsyncOperation,
    Cancelled,
}

const WEIGHTS: [(Drawn, u64); 7] = [
    (Drawn::Increment, 40),
    (Drawn::Send, 90),
    (Drawn::SendAfter, 10),
    (Drawn::Nothing, 20),
    (Drawn::SendEgress, 3),
    // The rest for interpreters of this program only.
    (Drawn::AsyncOperation, 10),
    (Drawn::Cancelled, 10),
];
const WEIGHTS_EVERYWHERE: usize = 5;

/// Of each level, fewer commands than this.
const COMMANDS: u64 = 3;

impl Plan {
    /// The message of a number.
    pub fn message(&self, number: u64) -> SourceCommand {
        let mut draw = Draw { plan: self, state: mix(self.seed) ^ mix(number.wrapping_add(1)) };
        let depth = draw.below(self.depth);
        SourceCommand { target: draw.instance(), commands: draw.commands(depth) }
    }
}

/// Chance, for one message (SplitMix64).
struct Draw<'a> {
    plan: &'a Plan,
    state: u64,
}

impl Draw<'_> {
    fn any(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }

    fn instance(&mut self) -> i32 {
        self.below(self.plan.instances) as i32
    }

    /// Commands of this depth, at least one.
    fn commands(&mut self, depth: u64) -> Commands {
        let mut commands = Vec::new();
        if depth > 0 {
            for _ in 0..self.below(COMMANDS) {
                self.add_command(&mut commands, depth - 1);
            }
        }
        if commands.is_empty() {
            commands.push(Command::Increment);
        }
        Commands(commands)
    }

    /// Adds what is drawn; commands in it are of the depth.
    fn add_command(&mut self, to: &mut Vec<Command>, depth: u64) {
        let token = String::new();
        match self.drawn() {
            Drawn::Nothing => {}
            Drawn::Increment => to.push(Command::Increment),
            Drawn::SendEgress => to.push(Command::SendEgress),
            Drawn::Send => {
                let (target, commands) = (self.instance(), self.commands(depth));
                to.push(Command::Send { target, commands });
            }
            Drawn::SendAfter => {
                let (target, commands) = (self.instance(), self.commands(depth));
                to.push(Command::SendAfter { target, commands, token });
            }
            Drawn::AsyncOperation => {
                let (failure, resolved) = (self.below(2) == 0, self.commands(depth));
                to.push(Command::AsyncOperation { failure, resolved });
            }
            Drawn::Cancelled => {
                let (target, commands) = (self.instance(), Commands::default());
                let token = format!("{:016x}{:016x}", self.any(), self.any());
                to.push(Command::SendAfter { target, commands, token: token.clone() });
                to.push(Command::CancelSendAfter { target, token });
            }
        }
    }

    fn drawn(&mut self) -> Drawn {
        let weights = match self.plan.operations {
            true => &WEIGHTS[..],
            false => &WEIGHTS[..WEIGHTS_EVERYWHERE],
        };
        let mut left = self.below(weights.iter().map(|(_, weight)| weight).sum());
        for (drawn, weight) in weights {
            match left.checked_sub(*weight) {
                None => return *drawn,
                Some(rest) => left = rest,
            }
        }
        unreachable!("what is left is below the sum")
    }
}

/// Scatters the bits of a number.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

//! What instances are told and report, and the names under which others know it.
//!
//! `commands.proto` says what stands in the bytes. Nothing here knows what a command does.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use timely_statefun::{Egress, FunctionType, Named, Typed, TypedValue};

use crate::protobuf::{self, Content, Malformed, write_message, write_number, write_text};

/// Follows commands. Its ids are the numbers from 0.
pub const INTERPRETER: FunctionType<Commands> =
    FunctionType::new("statefun.smoke.e2e/command-interpreter-fn");
/// What [`Command::SendEgress`] emits, which can be anything.
pub const DISCARDS: Egress<TypedValue> = Egress::new("statefun.smoke.e2e/discard-sink");
/// What [`Command::Verify`] reports.
pub const RESULTS: Egress<VerificationResult> = Egress::new("statefun.smoke.e2e/verification-sink");

/// What enters: commands for one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceCommand {
    pub target: i32,
    pub commands: Commands,
}

/// Commands, to be followed in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands(pub Vec<Command>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Count one more.
    Increment,
    /// Send commands on.
    Send { target: i32, commands: Commands },
    /// Send them after a millisecond; unless cancelled before, where there is a token.
    SendAfter { target: i32, commands: Commands, token: String },
    /// Emit something that nobody looks at.
    SendEgress,
    /// Wait for something, and follow the commands whether it fails or not.
    AsyncOperation { failure: bool, resolved: Commands },
    /// Report the count, and this beside it.
    Verify { expected: i64 },
    /// Cancel what was sent with the token.
    CancelSendAfter { target: i32, token: String },
}

/// What an instance counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationResult {
    pub id: i32,
    pub expected: i64,
    pub actual: i64,
}

type Read<T> = Result<T, Malformed>;

impl SourceCommand {
    fn write(&self) -> Vec<u8> {
        targeted(self.target, &self.commands)
    }

    fn read(bytes: &[u8]) -> Read<Self> {
        let (target, commands, _) = read_targeted(bytes)?;
        Ok(SourceCommand { target, commands })
    }
}

impl Commands {
    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.iter().for_each(|command| write_message(&mut bytes, 1, &command.write()));
        bytes
    }

    fn read(bytes: &[u8]) -> Read<Self> {
        let mut commands = Vec::new();
        for field in protobuf::fields(bytes) {
            match field? {
                (1, Content::Bytes(bytes)) => commands.push(Command::read(bytes)?),
                (1, _) => return Err(Malformed::Field(1)),
                _ => {}
            }
        }
        Ok(Commands(commands))
    }
}

impl Command {
    fn write(&self) -> Vec<u8> {
        let (field, content) = match self {
            Command::Increment => (1, Vec::new()),
            Command::Send { target, commands } => (2, targeted(*target, commands)),
            Command::SendAfter { target, commands, token } => {
                let mut bytes = targeted(*target, commands);
                write_text(&mut bytes, 3, token);
                (3, bytes)
            }
            Command::SendEgress => (4, Vec::new()),
            Command::AsyncOperation { failure, resolved } => {
                (5, targeted(i32::from(*failure), resolved))
            }
            Command::Verify { expected } => {
                let mut bytes = Vec::new();
                write_number(&mut bytes, 1, *expected);
                (6, bytes)
            }
            Command::CancelSendAfter { target, token } => {
                let mut bytes = Vec::new();
                write_number(&mut bytes, 1, i64::from(*target));
                write_text(&mut bytes, 2, token);
                (7, bytes)
            }
        };
        let mut bytes = Vec::new();
        write_message(&mut bytes, field, &content);
        bytes
    }

    fn read(bytes: &[u8]) -> Read<Self> {
        // Of several, the last counts. One that is unknown must not be passed over in silence.
        let mut command = None;
        for field in protobuf::fields(bytes) {
            let (field @ 1..=7, content) = field? else { continue };
            let Content::Bytes(bytes) = content else { return Err(Malformed::Field(field)) };
            command = Some(match field {
                1 => Command::Increment,
                2 => {
                    let (target, commands, _) = read_targeted(bytes)?;
                    Command::Send { target, commands }
                }
                3 => {
                    let (target, commands, token) = read_targeted(bytes)?;
                    Command::SendAfter { target, commands, token }
                }
                4 => Command::SendEgress,
                5 => {
                    let (failure, resolved, _) = read_targeted(bytes)?;
                    Command::AsyncOperation { failure: failure != 0, resolved }
                }
                6 => Command::Verify { expected: read_numbers(bytes)?[0] },
                _ => {
                    let (target, token) = read_cancellation(bytes)?;
                    Command::CancelSendAfter { target, token }
                }
            });
        }
        command.ok_or(Malformed::NoCommand)
    }
}

impl VerificationResult {
    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let VerificationResult { id, expected, actual } = self;
        write_number(&mut bytes, 1, i64::from(*id));
        write_number(&mut bytes, 2, *expected);
        write_number(&mut bytes, 3, *actual);
        bytes
    }

    fn read(bytes: &[u8]) -> Read<Self> {
        let [id, expected, actual] = read_numbers(bytes)?;
        Ok(VerificationResult { id: id as i32, expected, actual })
    }
}

/// A number and commands, which most messages are.
fn targeted(number: i32, commands: &Commands) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_number(&mut bytes, 1, i64::from(number));
    write_message(&mut bytes, 2, &commands.write());
    bytes
}

/// A number, commands, and the text that may come after them.
fn read_targeted(bytes: &[u8]) -> Read<(i32, Commands, String)> {
    let (mut number, mut commands, mut token) = (0, Commands::default(), String::new());
    for field in protobuf::fields(bytes) {
        match field? {
            (1, Content::Number(value)) => number = value as i32,
            (2, Content::Bytes(bytes)) => commands.0.extend(Commands::read(bytes)?.0),
            (3, Content::Bytes(bytes)) => token = read_text(bytes)?,
            (field @ 1..=3, _) => return Err(Malformed::Field(field)),
            _ => {}
        }
    }
    Ok((number, commands, token))
}

fn read_cancellation(bytes: &[u8]) -> Read<(i32, String)> {
    let (mut target, mut token) = (0, String::new());
    for field in protobuf::fields(bytes) {
        match field? {
            (1, Content::Number(value)) => target = value as i32,
            (2, Content::Bytes(bytes)) => token = read_text(bytes)?,
            (field @ 1..=2, _) => return Err(Malformed::Field(field)),
            _ => {}
        }
    }
    Ok((target, token))
}

/// The numbers in the first three fields.
fn read_numbers(bytes: &[u8]) -> Read<[i64; 3]> {
    let mut numbers = [0; 3];
    for field in protobuf::fields(bytes) {
        match field? {
            (field @ 1..=3, Content::Number(value)) => numbers[field as usize - 1] = value as i64,
            (field @ 1..=3, _) => return Err(Malformed::Field(field)),
            _ => {}
        }
    }
    Ok(numbers)
}

fn read_text(bytes: &[u8]) -> Read<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed::NotText)
}

macro_rules! typed {
    ($($of:ident $name:literal,)*) => { $(
        impl Named for $of {
            const TYPE_NAME: &'static str = $name;
        }

        impl Typed for $of {
            fn to_bytes(&self) -> Bytes {
                self.write().into()
            }

            fn from_bytes(bytes: &[u8]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
                Ok($of::read(bytes)?)
            }
        }
    )* };
}

typed! {
    SourceCommand "statefun.smoke.e2e/source-command",
    Commands "statefun.smoke.e2e/commands",
    VerificationResult "statefun.smoke.e2e/verification-result",
}

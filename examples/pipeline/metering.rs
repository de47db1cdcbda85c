//! Functions as one team's crate would bring them: how long each phone has been used, and which level that is.
//!
//! It knows nothing of the program that it is used in.

use serde::{Deserialize, Serialize};
use timely_statefun::{Egress, Function, FunctionType, Functions, ValueSpec, messages};

/// The meter of a phone, by its number.
pub const METER: FunctionType<Used> = FunctionType::new("metering/meter");
/// Phones and their levels, as changes: each phone that has been used is at one.
pub const LEVELS: Egress<((u64, Level), isize)> = Egress::new("metering/levels");

const SECONDS: ValueSpec<u64> = ValueSpec::new("seconds");

/// Somebody has phoned for so many seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Used(pub u64);

/// The longer a phone has been used, the higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    Basic,
    /// From ten hours on.
    Plus,
    /// From thirty hours on.
    Premium,
}

messages! {
    /// What these functions are told.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Message { Used(Used) }
}

pub fn functions() -> Functions<Message> {
    let meter = Function::new(|context, Used(seconds): &Used| {
        let phone = context.id().as_number().ok_or("phones have numbers")?;
        let before = context.get(SECONDS).copied();
        let after = before.unwrap_or(0) + seconds;
        context.set(SECONDS, after);
        let (old, new) = (before.map(level), level(after));
        if old != Some(new) {
            old.into_iter().for_each(|old| context.emit(LEVELS, ((phone, old), -1)));
            context.emit(LEVELS, ((phone, new), 1));
        }
        Ok(())
    });
    Functions::new().embedded(METER, meter.value(SECONDS)).egress(LEVELS)
}

fn level(seconds: u64) -> Level {
    match seconds / 3600 {
        0..10 => Level::Basic,
        10..30 => Level::Plus,
        _ => Level::Premium,
    }
}

//! The program's own function, which hands calls on to those of others, and all of them together.

use serde::{Deserialize, Serialize};
use timely_statefun::{Function, FunctionType, Functions, messages};

use crate::contacts::{self, BOOK, Spoke};
use crate::metering::{self, METER, Used};

/// A phone, by its number.
pub const PHONE: FunctionType<Call> = FunctionType::new("pipeline/phone");

/// A call that a phone has placed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    pub callee: u64,
    pub seconds: u64,
}

messages! {
    /// What travels in the program: its own messages, and those of the others.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Message {
        Call(Call),
        Metering(metering::Message) carries [Used],
        Contacts(contacts::Message) carries [Spoke],
    }
}

pub fn functions() -> Functions<Message> {
    let phone = Function::new(|context, call: &Call| {
        let caller = context.id().as_number().ok_or("phones have numbers")?;
        context.send(METER, caller, Used(call.seconds));
        context.send(BOOK, caller, Spoke(call.callee));
        context.send(BOOK, call.callee, Spoke(caller));
        Ok(())
    });
    Functions::new()
        .named("pipeline")
        .embedded(PHONE, phone)
        .bundle(metering::functions())
        .bundle(contacts::functions())
}

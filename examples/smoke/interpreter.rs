//! The command interpreter: as a function of this program, or served elsewhere.
//!
//! It does what it is told and checks nothing.

use std::time::Duration;

use timely_statefun::{
    Context, Endpoint, Function, FunctionResult, Functions, TypedValue, ValueSpec,
};
use tokio::runtime::Handle;

use crate::commands::{Command, Commands, DISCARDS, INTERPRETER, RESULTS, VerificationResult};

/// What is counted.
pub const STATE: ValueSpec<i64> = ValueSpec::new("state");
/// How late a delayed message is sent, and how long an asynchronous operation takes.
const DELAY: Duration = Duration::from_millis(1);
/// Asynchronous operations under way at once.
pub const OPERATIONS: usize = 1024;

/// Who follows the commands.
#[derive(Clone, Debug, PartialEq)]
pub enum Interpreter {
    /// The one in this file.
    Embedded,
    /// One that is served elsewhere.
    Remote(Endpoint),
}

/// The function and its egresses.
pub fn functions(interpreter: &Interpreter, runtime: Handle) -> Functions<TypedValue> {
    let functions = Functions::new().named("smoke").runtime(runtime);
    let functions = functions.typed_egress(DISCARDS).typed_egress(RESULTS);
    match interpreter {
        Interpreter::Embedded => {
            let function = Function::new(interpret).value(STATE).operations(OPERATIONS);
            functions.embedded(INTERPRETER, function)
        }
        Interpreter::Remote(endpoint) => functions.remote(INTERPRETER, endpoint.clone()),
    }
}

/// Follows commands.
pub fn interpret(context: &mut Context<'_, TypedValue>, commands: &Commands) -> FunctionResult {
    for command in &commands.0 {
        match command {
            Command::Increment => drop(context.update(STATE, |state| *state += 1)),
            Command::Send { target, commands } => {
                context.send(INTERPRETER, *target as u64, commands.clone());
            }
            Command::SendAfter { target, commands, token } if token.is_empty() => {
                context.send_after(DELAY, INTERPRETER, *target as u64, commands.clone());
            }
            Command::SendAfter { target, commands, token } => {
                let (target, commands) = (*target as u64, commands.clone());
                context.send_after_unless_cancelled(token, DELAY, INTERPRETER, target, commands)?;
            }
            Command::CancelSendAfter { token, .. } => drop(context.cancel(token)),
            Command::SendEgress => context.emit(DISCARDS, TypedValue::of(&String::new())),
            Command::AsyncOperation { failure, resolved } => {
                let (failure, resolved) = (*failure, resolved.clone());
                let operation = async move {
                    tokio::time::sleep(DELAY).await;
                    if failure { Err("it was to fail") } else { Ok(()) }
                };
                // The commands are followed whatever becomes of it.
                context.start(operation, move |_| resolved.clone());
            }
            Command::Verify { expected } => {
                let id = context.id().as_number().ok_or("an instance has a number")?;
                let actual = context.get(STATE).copied().unwrap_or(0);
                let result = VerificationResult { id: id as i32, expected: *expected, actual };
                context.emit(RESULTS, result);
            }
        }
    }
    Ok(())
}

//! Functions to run: StateFun's greeter, served over HTTP by this program itself.

use serde::{Deserialize, Serialize};
use timely_statefun::playground::{EGRESS, EgressRecord};
use timely_statefun::{
    Context, Function, FunctionResult, FunctionType, Functions, TypedValue, ValueSpec, json_type,
};

#[derive(Clone, Serialize, Deserialize)]
struct GreetRequest {
    name: String,
    #[serde(default)]
    visits: i32,
}

json_type!(GreetRequest, "example/GreetRequest");

const PERSON: FunctionType<GreetRequest> = FunctionType::new("example/person");
const GREETER: FunctionType<GreetRequest> = FunctionType::new("example/greeter");
const VISITS: ValueSpec<i32> = ValueSpec::new("visits");

/// Counts the visits of somebody.
fn person(context: &mut Context<'_, TypedValue>, request: &GreetRequest) -> FunctionResult {
    let visits = context.update(VISITS, |visits| *visits += 1);
    let name = request.name.clone();
    context.send(GREETER, name.clone(), GreetRequest { name, visits });
    Ok(())
}

/// Greets somebody who has been counted.
fn greeter(context: &mut Context<'_, TypedValue>, request: &GreetRequest) -> FunctionResult {
    let greeting = format!("visit {} of {}", request.visits, request.name);
    context.emit(EGRESS, TypedValue::of(&EgressRecord::new("greetings", greeting)));
    Ok(())
}

pub fn functions() -> Functions<TypedValue> {
    let functions = Functions::new().typed_egress(EGRESS);
    let functions = functions.embedded(PERSON, Function::new(person).value(VISITS));
    functions.embedded(GREETER, Function::new(greeter))
}

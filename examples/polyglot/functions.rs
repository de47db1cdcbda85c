//! Its functions: an account for each phone, and the tariff that accounts ask, here or elsewhere.

use timely_statefun::{
    Context, Egress, Endpoint, Function, FunctionResult, FunctionType, Functions, TypedValue,
    ValueSpec,
};
use tokio::runtime::Handle;

/// Takes the seconds of a call from outside, and the price of one from the tariff.
pub const ACCOUNT: FunctionType<i32> = FunctionType::new("phones/account");
/// Takes the seconds of a call and replies with its price.
pub const TARIFF: FunctionType<i32> = FunctionType::new("phones/tariff");
/// The price of each call: phone and cents.
pub const CHARGES: Egress<(String, u64)> = Egress::new("phones/charges");
/// What the tariff has to say to those who phone.
pub const NOTICES: Egress<String> = Egress::new("phones/notices");

/// How long a phone has been used.
const USED: ValueSpec<i32> = ValueSpec::new("used");
/// For so long phoning is free; then it is a cent a second.
pub const FREE_SECONDS: i32 = 20 * 60 * 60;

/// The functions and egresses, with the tariff at the endpoint if there is one.
pub fn functions(endpoint: Option<Endpoint>, runtime: Handle) -> Functions<TypedValue> {
    let functions = Functions::new()
        .named("polyglot")
        .runtime(runtime)
        .embedded(ACCOUNT, Function::new(account))
        .egress(CHARGES)
        .typed_egress(NOTICES);
    match endpoint {
        None => functions.embedded(TARIFF, Function::new(tariff).value(USED)),
        Some(endpoint) => functions.remote(TARIFF, endpoint),
    }
}

/// Asks what a call costs, and books the answer.
fn account(context: &mut Context<'_, TypedValue>, number: &i32) -> FunctionResult {
    let phone = context.id().clone();
    match context.caller() {
        None => context.send(TARIFF, phone, *number),
        Some(_) => context.emit(CHARGES, (phone.to_string(), u64::try_from(*number)?)),
    }
    Ok(())
}

/// What the servers in other languages do as well.
fn tariff(context: &mut Context<'_, TypedValue>, seconds: &i32) -> FunctionResult {
    let used = context.update(USED, |used| *used += seconds);
    let beyond = (used - FREE_SECONDS).max(0);
    context.reply(beyond.min(*seconds))?;
    if 0 < beyond && beyond <= *seconds {
        context.emit(NOTICES, format!("phone {}: the free hours are used up", context.id()));
    }
    Ok(())
}

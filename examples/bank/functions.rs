//! The bank: accounts, and transfers between them.

use serde::{Deserialize, Serialize};
use timely_statefun::{
    Context, Egress, Function, FunctionResult, FunctionType, Functions, ValueSpec,
};

/// An account, by its number.
pub const ACCOUNT: FunctionType<ToAccount> = FunctionType::new("bank/account");
/// A transfer, by its number.
pub const TRANSFER: FunctionType<ToTransfer> = FunctionType::new("bank/transfer");
/// What is in an account. This is what the dataflow watches.
pub const BALANCE: ValueSpec<i64> = ValueSpec::new("balance");
/// Transfers that were made, or refused.
pub const SETTLED: Egress<Settled> = Egress::new("bank/settled");

/// What an account of a transfer still knows.
const UNDER_WAY: ValueSpec<Transfer> = ValueSpec::typed("transfer", "bank/transfer");

/// What an account is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToAccount {
    /// Gives it what it begins with, or what somebody transfers.
    Deposit(i64),
    /// Takes something, and tells the transfer whether there was enough.
    Withdraw(i64),
}

/// What a transfer is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToTransfer {
    /// It begins.
    Begin(Transfer),
    /// Whether there was enough.
    Withdrawn(bool),
}

/// Who gives whom how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    pub from: u64,
    pub to: u64,
    pub amount: i64,
}

/// What became of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub transfer: Transfer,
    pub is_made: bool,
}

timely_statefun::messages! {
    /// What travels in the bank.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Message {
        Account(ToAccount),
        Transfer(ToTransfer),
    }
}

fn account(context: &mut Context<'_, Message>, told: &ToAccount) -> FunctionResult {
    let balance = context.get(BALANCE).copied().unwrap_or(0);
    match told {
        ToAccount::Deposit(amount) => context.set(BALANCE, balance + amount),
        ToAccount::Withdraw(amount) => {
            let is_enough = balance >= *amount;
            if is_enough {
                context.set(BALANCE, balance - amount);
            }
            context.reply(ToTransfer::Withdrawn(is_enough))?;
        }
    }
    Ok(())
}

fn transfer(context: &mut Context<'_, Message>, told: &ToTransfer) -> FunctionResult {
    match told {
        ToTransfer::Begin(transfer) => {
            context.set(UNDER_WAY, *transfer);
            context.send(ACCOUNT, transfer.from, ToAccount::Withdraw(transfer.amount));
        }
        ToTransfer::Withdrawn(is_made) => {
            let transfer = *context.get(UNDER_WAY).ok_or("nothing is under way")?;
            context.clear(UNDER_WAY);
            if *is_made {
                context.send(ACCOUNT, transfer.to, ToAccount::Deposit(transfer.amount));
            }
            context.emit(SETTLED, Settled { transfer, is_made: *is_made });
        }
    }
    Ok(())
}

/// All functions, of whose state the balances are watched.
pub fn functions() -> Functions<Message> {
    Functions::new()
        .named("bank")
        .embedded(ACCOUNT, Function::new(account).value(BALANCE))
        .embedded(TRANSFER, Function::new(transfer).value(UNDER_WAY))
        .egress(SETTLED)
        .watched(ACCOUNT, BALANCE)
}

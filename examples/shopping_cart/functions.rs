//! The shop: a cart for each customer and a stock for each item, here or served elsewhere.
//!
//! Everything that travels and is kept is JSON or a number, so they could be written in another language.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely_statefun::{
    Context, Egress, Endpoint, Function, FunctionResult, FunctionType, Functions, ValueSpec,
    json_type,
};

/// The cart of a customer, by the customer's number.
pub const CART: FunctionType<ToCart> = FunctionType::new("shop/cart");
/// The stock of an item, by its name.
pub const STOCK: FunctionType<ToStock> = FunctionType::new("shop/stock");
/// What customers are told.
pub const NOTICES: Egress<Notice> = Egress::new("shop/notices");

/// What is in a cart.
pub const BASKET: ValueSpec<Basket> = ValueSpec::shared("basket");
/// How many pieces there are to be had.
pub const LEFT: ValueSpec<i64> = ValueSpec::new("left");

pub const HOUR: Duration = Duration::from_secs(60 * 60);
/// How long after its last item a cart gives back what is in it.
pub const PATIENCE_HOURS: u32 = 4;
/// The token of the message that says that the time is over.
const ABANDONED: &str = "abandoned";

/// Items, and how many pieces of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Basket(pub BTreeMap<String, i64>);

/// What a cart is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToCart {
    /// Its customer wants something.
    Add { item: String, pieces: i64 },
    /// The stock has handed it over, or has not got as much.
    Answer { item: String, pieces: i64, in_stock: bool },
    /// Its customer wants nothing of it any more.
    Clear,
    /// Its customer pays.
    Checkout,
    /// Its customer has not come back.
    Abandoned,
}

/// What a stock is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToStock {
    /// The shop has bought some.
    Deliver(i64),
    /// A cart wants some.
    Request(i64),
    /// A cart gives some back.
    Restock(i64),
}

/// What a customer is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Notice {
    pub customer: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum What {
    /// This is paid for.
    Receipt(Basket),
    /// There is not as much of it.
    OutOfStock(String),
    /// The cart was given up, with this in it.
    GivenUp(Basket),
}

json_type!(Basket, "shop/basket");
json_type!(ToCart, "shop/to-cart");
json_type!(ToStock, "shop/to-stock");
json_type!(Notice, "shop/notice");

timely_statefun::messages! {
    /// What travels in the shop, between languages as well.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Message: TypedMessage {
        Cart(ToCart),
        Stock(ToStock),
    }
}

/// The functions as part of the program, or at an endpoint. What they keep is watched in both cases.
pub fn functions(endpoint: Option<Endpoint>) -> Functions<Message> {
    let shop = Functions::new()
        .named("shop")
        .typed_egress(NOTICES)
        .watched(CART, BASKET)
        .watched(STOCK, LEFT);
    match endpoint {
        None => shop
            .embedded(CART, Function::new(cart).value(BASKET))
            .embedded(STOCK, Function::new(stock).value(LEFT)),
        Some(endpoint) => shop.remote(CART, endpoint.clone()).remote(STOCK, endpoint),
    }
}

fn stock(context: &mut Context<'_, Message>, told: &ToStock) -> FunctionResult {
    let left = context.get(LEFT).copied().unwrap_or(0);
    match told {
        ToStock::Deliver(pieces) | ToStock::Restock(pieces) => context.set(LEFT, left + pieces),
        ToStock::Request(pieces) => {
            let in_stock = left >= *pieces;
            if in_stock {
                context.set(LEFT, left - pieces);
            }
            let item = context.id().to_string();
            context.reply(ToCart::Answer { item, pieces: *pieces, in_stock })?;
        }
    }
    Ok(())
}

fn cart(context: &mut Context<'_, Message>, told: &ToCart) -> FunctionResult {
    match told {
        ToCart::Add { item, pieces } => context.send(STOCK, item, ToStock::Request(*pieces)),
        ToCart::Answer { item, pieces, in_stock: true } => {
            context.update(BASKET, |basket| *basket.0.entry(item.clone()).or_default() += pieces);
            // The time begins anew with each item.
            context.cancel(ABANDONED);
            let (this, wait) = (context.id().clone(), HOUR * PATIENCE_HOURS);
            context.send_after_unless_cancelled(ABANDONED, wait, CART, this, ToCart::Abandoned)?;
        }
        ToCart::Answer { item, in_stock: false, .. } => {
            tell(context, What::OutOfStock(item.clone()))?;
        }
        ToCart::Clear => {
            let basket = empty(context);
            give_back(context, &basket);
        }
        ToCart::Checkout => {
            let basket = empty(context);
            if !basket.0.is_empty() {
                tell(context, What::Receipt(basket))?;
            }
        }
        ToCart::Abandoned => {
            let basket = empty(context);
            give_back(context, &basket);
            tell(context, What::GivenUp(basket))?;
        }
    }
    Ok(())
}

/// Takes everything out of the cart.
fn empty(context: &mut Context<'_, Message>) -> Basket {
    context.cancel(ABANDONED);
    let basket = context.get(BASKET).cloned().unwrap_or_default();
    context.clear(BASKET);
    basket
}

fn give_back(context: &mut Context<'_, Message>, basket: &Basket) {
    for (item, pieces) in &basket.0 {
        context.send(STOCK, item, ToStock::Restock(*pieces));
    }
}

fn tell(context: &mut Context<'_, Message>, what: What) -> FunctionResult {
    let customer = context.id().as_number().ok_or("customers have numbers")?;
    context.emit(NOTICES, Notice { customer, what });
    Ok(())
}

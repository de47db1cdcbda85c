//! The macro that writes a program's message enum.
//!
//! It writes what [`Carries`](crate::Carries) shows by hand, and conversions. It never knows which
//! functions there are.

/// Writes a program's message enum, one variant for each kind of input, with all that makes it
/// [carry](crate::Carries) them.
///
/// Each variant holds one input. For a variant `Deposit(Deposit)` of an enum `Message` this writes,
/// besides the enum with the attributes, comments and visibility it is given,
///
/// * `Carries<Deposit> for Message`, so that functions of the program can take a `Deposit` and be sent
///   one. The [`Mismatch`](crate::Mismatch) of a message that holds something else names the type that
///   is wanted and the variant that is found, as they are written here.
/// * `From<Deposit> for Message`.
///
/// A type is carried by one variant only, or it would not be clear which is meant; a second one is
/// an error of the compiler.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use timely::dataflow::operators::vec::Map;
/// use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
/// use timely_statefun::{Egress, Envelope, Function, Functions, FunctionType, OnFailure};
/// use timely_statefun::{StatefulFunctions, ValueSpec};
///
/// /// Money comes in.
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// pub struct Deposit(u64);
/// /// The account to move money to, and how much.
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// pub struct Transfer(String, u64);
///
/// timely_statefun::messages! {
///     /// What travels between the accounts.
///     #[derive(Clone, Debug, Serialize, Deserialize)]
///     pub enum Message {
///         /// For an account.
///         Deposit(Deposit),
///         Transfer(Transfer),
///     }
/// }
///
/// const ACCOUNT: FunctionType<Deposit> = FunctionType::new("bank/account");
/// const TELLER: FunctionType<Transfer> = FunctionType::new("bank/teller");
/// const BALANCE: ValueSpec<u64> = ValueSpec::new("balance");
/// const BALANCES: Egress<(String, u64)> = Egress::new("bank/balances");
///
/// fn functions() -> Functions<Message> {
///     let account = Function::new(|context, Deposit(amount): &Deposit| {
///         let balance = context.update(BALANCE, |balance| *balance += amount);
///         context.emit(BALANCES, (context.id().to_string(), balance));
///         Ok(())
///     });
///     let teller = Function::new(|context, Transfer(to, amount): &Transfer| {
///         context.send(ACCOUNT, to, Deposit(*amount));
///         Ok(())
///     });
///     Functions::new()
///         .embedded(ACCOUNT, account.value(BALANCE))
///         .embedded(TELLER, teller.on_failure(OnFailure::DeadLetter))
///         .egress(BALANCES)
/// }
///
/// let (balances, letters) = timely::example(|scope| {
///     let ingress = [
///         ACCOUNT.message("ada", Deposit(5)),
///         TELLER.message("first", Transfer("ada".to_owned(), 2)),
///         // An address that is known only at run time can be sent what it does not take.
///         Envelope::new(TELLER.at("second"), Message::from(Deposit(1))),
///     ];
///     let egresses = ingress.to_stream(scope).stateful_functions(functions()).unwrap();
///     let letters = egresses.dead_letters().unwrap().map(|letter| letter.reason.to_string());
///     (egresses.stream(BALANCES).unwrap().capture(), letters.capture())
/// });
/// assert_eq!(balances.extract()[0].1, [("ada".into(), 5), ("ada".into(), 7)]);
/// let reasons = letters.extract().remove(0).1;
/// assert!(reasons[0].ends_with("Deposit where Transfer is wanted"), "{reasons:?}");
/// ```
///
/// What no variant carries cannot be sent:
///
/// ```compile_fail
/// # use timely_statefun::{Envelope, FunctionType};
/// # pub struct Deposit(u64);
/// # pub struct Transfer(String, u64);
/// timely_statefun::messages! {
///     pub enum Message { Deposit(Deposit), Transfer(Transfer) }
/// }
///
/// const CLERK: FunctionType<String> = FunctionType::new("bank/clerk");
/// let envelope: Envelope<Message> = CLERK.message("grace", "hello".to_owned());
/// ```
///
/// # Messages of others
///
/// Functions that come with a message type of their own, from another crate perhaps, get one variant
/// for all of it. After `carries` stand the inputs in it that functions of this program take or are
/// sent: they travel inside that variant, as the other message type packs them. Whoever takes the
/// whole of the other type gets them as well.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
/// # use timely_statefun::{Function, Functions, FunctionType, StatefulFunctions};
/// mod audit {
///     # use serde::{Deserialize, Serialize};
///     # use timely_statefun::{Carries, Egress, Function, Functions, FunctionType, ValueSpec};
///     /// An amount to write down.
///     #[derive(Clone, Debug, Serialize, Deserialize)]
///     pub struct Entry(pub u64);
///     /// What a book has come to.
///     #[derive(Clone, Debug, Serialize, Deserialize)]
///     pub struct Alarm(u64);
///
///     timely_statefun::messages! {
///         /// What the functions here are told.
///         #[derive(Clone, Debug, Serialize, Deserialize)]
///         pub enum Message { Entry(Entry), Alarm(Alarm) }
///     }
///
///     pub const BOOK: FunctionType<Entry> = FunctionType::new("audit/book");
///     const GUARD: FunctionType<Alarm> = FunctionType::new("audit/guard");
///     const SUM: ValueSpec<u64> = ValueSpec::new("sum");
///     pub const ALARMS: Egress<u64> = Egress::new("audit/alarms");
///
///     /// Adds these functions to those of any program whose messages carry what they are told.
///     pub fn bind<M: Carries<Entry> + Carries<Alarm> + 'static>(to: Functions<M>) -> Functions<M> {
///         let book = Function::new(|context, Entry(amount): &Entry| {
///             let sum = context.update(SUM, |sum| *sum += amount);
///             if sum > 10 {
///                 context.send(GUARD, "night shift", Alarm(sum));
///             }
///             Ok(())
///         });
///         let guard = Function::new(|context, Alarm(sum): &Alarm| {
///             context.emit(ALARMS, *sum);
///             Ok(())
///         });
///         to.embedded(BOOK, book.value(SUM)).embedded(GUARD, guard).egress(ALARMS)
///     }
/// }
///
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// pub struct Deposit(u64);
///
/// timely_statefun::messages! {
///     #[derive(Clone, Debug, Serialize, Deserialize)]
///     pub enum Message {
///         Deposit(Deposit),
///         Audit(audit::Message) carries [audit::Entry, audit::Alarm],
///     }
/// }
///
/// const ACCOUNT: FunctionType<Deposit> = FunctionType::new("bank/account");
///
/// let alarms = timely::example(|scope| {
///     let account = Function::new(|context, Deposit(amount): &Deposit| {
///         context.send(audit::BOOK, "today", audit::Entry(*amount));
///         Ok(())
///     });
///     let functions: Functions<Message> = Functions::new().embedded(ACCOUNT, account);
///     let deposits = [ACCOUNT.message("ada", Deposit(5)), ACCOUNT.message("bob", Deposit(7))];
///     let egresses = deposits.to_stream(scope).stateful_functions(audit::bind(functions)).unwrap();
///     egresses.stream(audit::ALARMS).unwrap().capture()
/// });
/// assert_eq!(alarms.extract()[0].1, [12]);
/// ```
///
/// # Messages for other languages
///
/// With `: TypedMessage` behind its name, the enum is a [`TypedMessage`](crate::TypedMessage), which
/// [remote functions](crate::Functions::remote) can take and send. Each variant holds one as well: a
/// [`Typed`](crate::Typed) type, or the messages of others. A value that comes back belongs to the first
/// variant that takes its type.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use timely_statefun::{Mismatch, TypedMessage, TypedValue};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// pub struct Order { article: String }
/// timely_statefun::json_type!(Order, "shop/order");
///
/// timely_statefun::messages! {
///     #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
///     pub enum Message: TypedMessage { Order(Order), Pieces(i32) }
/// }
///
/// let order = Message::from(Order { article: "tea".to_owned() });
/// let value = order.to_typed()?;
/// assert_eq!((value.type_name(), &value.bytes()[..]), ("shop/order", &br#"{"article":"tea"}"#[..]));
/// assert_eq!(Message::from_typed(value), Ok(order));
/// assert_eq!(Message::from_typed(TypedValue::of(&7)), Ok(Message::Pieces(7)));
/// let neither = Message::from_typed(TypedValue::of(&true)).unwrap_err();
/// assert_eq!(neither.to_string(), "io.statefun.types/bool where Order or Pieces is wanted");
/// # Ok::<(), Mismatch>(())
/// ```
#[macro_export]
macro_rules! messages {
    (
        $(#[$of_enum:meta])*
        $visibility:vis enum $Message:ident: TypedMessage {
            $(
                $(#[$of_variant:meta])*
                $Variant:ident($Input:ty) $(carries [$($Inner:ty),* $(,)?])?
            ),+
            $(,)?
        }
    ) => {
        $crate::messages! {
            $(#[$of_enum])*
            $visibility enum $Message {
                $(
                    $(#[$of_variant])*
                    $Variant($Input) $(carries [$($Inner),*])?
                ),+
            }
        }

        impl $crate::TypedMessage for $Message {
            fn takes(type_name: &::core::primitive::str) -> ::core::primitive::bool {
                $(<$Input as $crate::TypedMessage>::takes(type_name))||+
            }

            fn to_typed(
                &self,
            ) -> ::core::result::Result<$crate::TypedValue, $crate::Mismatch> {
                match self {
                    $(Self::$Variant(input) => $crate::TypedMessage::to_typed(input),)+
                }
            }

            fn from_typed(
                value: $crate::TypedValue,
            ) -> ::core::result::Result<Self, $crate::Mismatch> {
                $(
                    if <$Input as $crate::TypedMessage>::takes(value.type_name()) {
                        return <$Input as $crate::TypedMessage>::from_typed(value)
                            .map(Self::$Variant);
                    }
                )+
                const VARIANTS: &[&::core::primitive::str] = &[$(::core::stringify!($Variant)),+];
                ::core::result::Result::Err($crate::Mismatch::new(
                    VARIANTS.join(" or "),
                    value.type_name(),
                ))
            }
        }
    };
    (
        $(#[$of_enum:meta])*
        $visibility:vis enum $Message:ident {
            $(
                $(#[$of_variant:meta])*
                $Variant:ident($Input:ty) $(carries [$($Inner:ty),* $(,)?])?
            ),+
            $(,)?
        }
    ) => {
        $(#[$of_enum])*
        $visibility enum $Message {
            $(
                $(#[$of_variant])*
                $Variant($Input),
            )+
        }

        // Nothing in here can be named outside or clash with a name there. What the caller's code may
        // have other things for is written with its whole path, and the type parameter with a name
        // that nobody gives an input.
        const _: () = {
            fn variant(message: &$Message) -> &'static ::core::primitive::str {
                match message {
                    $($Message::$Variant(_) => ::core::stringify!($Variant),)+
                }
            }

            $(
                impl $crate::Carries<$Input> for $Message {
                    #[inline]
                    fn pack(input: $Input) -> Self {
                        Self::$Variant(input)
                    }

                    #[inline]
                    fn unpack<__Read>(
                        &self,
                        read: impl ::core::ops::FnOnce(&$Input) -> __Read,
                    ) -> ::core::result::Result<__Read, $crate::Mismatch> {
                        match self {
                            Self::$Variant(input) => ::core::result::Result::Ok(read(input)),
                            #[allow(unreachable_patterns, reason = "there may be one variant only")]
                            found => ::core::result::Result::Err($crate::Mismatch::new(
                                ::core::stringify!($Input),
                                variant(found),
                            )),
                        }
                    }
                }

                impl ::core::convert::From<$Input> for $Message {
                    #[inline]
                    fn from(input: $Input) -> Self {
                        Self::$Variant(input)
                    }
                }

                $($(
                    impl $crate::Carries<$Inner> for $Message {
                        #[inline]
                        fn pack(input: $Inner) -> Self {
                            Self::$Variant(<$Input as $crate::Carries<$Inner>>::pack(input))
                        }

                        #[inline]
                        fn unpack<__Read>(
                            &self,
                            read: impl ::core::ops::FnOnce(&$Inner) -> __Read,
                        ) -> ::core::result::Result<__Read, $crate::Mismatch> {
                            match self {
                                Self::$Variant(inner) => {
                                    <$Input as $crate::Carries<$Inner>>::unpack(inner, read)
                                }
                                #[allow(
                                    unreachable_patterns,
                                    reason = "there may be one variant only"
                                )]
                                found => ::core::result::Result::Err($crate::Mismatch::new(
                                    ::core::stringify!($Inner),
                                    variant(found),
                                )),
                            }
                        }
                    }
                )*)?
            )+
        };
    };
}

#[cfg(test)]
mod tests {
    use crate::{Carries, Mismatch};

    /// The messages of somebody else.
    mod audit {
        #[derive(Clone, Debug, PartialEq)]
        pub struct Entry(pub u64);
        #[derive(Clone, Debug, PartialEq)]
        pub struct Query;

        crate::messages! {
            #[derive(Clone, Debug, PartialEq)]
            pub enum Message {
                Entry(Entry),
                Query(Query)
            }
        }
    }

    /// The messages of yet somebody else.
    mod mail {
        crate::messages! {
            /// Only one kind, and a type from elsewhere.
            #[derive(Clone, Debug, PartialEq)]
            pub enum Message { Letter(String) }
        }
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Deposit(u64);
    #[derive(Clone, Debug, PartialEq)]
    struct Transfer(u64);

    crate::messages! {
        /// What travels between the accounts.
        #[derive(Clone, Debug, PartialEq)]
        enum Message {
            /// Money comes in.
            Deposit(Deposit),
            Move(Transfer),
            Amounts(Vec<u64>),
            Audit(audit::Message) carries [audit::Entry, audit::Query,],
            Mail(mail::Message) carries [String],
        }
    }

    fn mismatch<I>(message: &Message) -> String
    where
        Message: Carries<I>,
    {
        let read = message.unpack(|_: &I| ());
        read.expect_err("this is to be a mismatch").to_string()
    }

    #[test]
    fn every_input_is_packed_into_its_variant_and_read_from_it() {
        assert_eq!(Message::pack(Deposit(7)), Message::Deposit(Deposit(7)));
        assert_eq!(Message::from(Transfer(7)), Message::Move(Transfer(7)));
        assert_eq!(Message::Deposit(Deposit(7)).unpack(|Deposit(amount)| *amount), Ok(7));
        assert_eq!(Message::from(vec![1, 2]).unpack(|amounts: &Vec<u64>| amounts.len()), Ok(2));
        let message = Message::from(Deposit(1));
        assert_eq!(message.unpack(|message: &Message| message.clone()), Ok(message.clone()));
    }

    #[test]
    fn a_mismatch_names_the_type_that_is_wanted_and_the_variant_that_is_found() {
        let deposit = Message::from(Deposit(1));
        let found: Result<(), Mismatch> = deposit.unpack(|Transfer(_)| ());
        assert_eq!(found, Err(Mismatch::new("Transfer", "Deposit")));
        assert_eq!(mismatch::<Transfer>(&deposit), "Deposit where Transfer is wanted");
        assert_eq!(
            mismatch::<Deposit>(&Message::from(Transfer(1))),
            "Move where Deposit is wanted"
        );
        assert_eq!(mismatch::<Vec<u64>>(&deposit), "Deposit where Vec<u64> is wanted");
        assert_eq!(mismatch::<audit::Message>(&deposit), "Deposit where audit::Message is wanted");
    }

    #[test]
    fn an_inner_input_is_packed_and_read_through_the_inner_message() {
        let entry = Message::pack(audit::Entry(7));
        assert_eq!(entry, Message::Audit(audit::Message::Entry(audit::Entry(7))));
        assert_eq!(entry.unpack(|audit::Entry(amount)| *amount), Ok(7));
        let whole = entry.unpack(|inner: &audit::Message| inner.clone());
        assert_eq!(whole, Ok(audit::Message::from(audit::Entry(7))));
        let letter = Message::pack("hello".to_owned());
        assert_eq!(letter, Message::Mail(mail::Message::Letter("hello".to_owned())));
        assert_eq!(letter.unpack(|text: &String| text.len()), Ok(5));
    }

    #[test]
    fn a_mismatch_of_inner_inputs_says_on_which_level_it_is() {
        // The other message knows its own types by its own names.
        let query = Message::pack(audit::Query);
        assert_eq!(mismatch::<audit::Entry>(&query), "Query where Entry is wanted");
        assert_eq!(mismatch::<String>(&query), "Audit where String is wanted");
        assert_eq!(mismatch::<Deposit>(&query), "Audit where Deposit is wanted");
        let deposit = Message::from(Deposit(1));
        assert_eq!(mismatch::<audit::Entry>(&deposit), "Deposit where audit::Entry is wanted");
    }

    #[test]
    fn typed_messages_go_to_other_languages_and_come_back() {
        use crate::{TypedMessage, TypedValue};

        crate::messages! {
            #[derive(Debug, PartialEq)]
            enum Inner: TypedMessage { Flag(bool), Text(String) }
        }

        crate::messages! {
            #[derive(Debug, PartialEq)]
            pub(crate) enum Outer: TypedMessage {
                /// One of its own.
                Count(i64),
                Inner(Inner) carries [String],
                Rest(TypedValue),
            }
        }

        let rest = TypedValue::of(&1.5_f64);
        for message in [
            Outer::Count(7),
            Outer::Inner(Inner::Flag(true)),
            Outer::pack("hello".to_owned()),
            Outer::Rest(rest),
        ] {
            let value = message.to_typed().unwrap();
            assert_eq!(Outer::from_typed(value), Ok(message));
        }
        assert!(Inner::takes("io.statefun.types/bool") && !Inner::takes("io.statefun.types/long"));
        assert!(Outer::takes("anything/else"), "the last variant takes what no other does");
        let broken = TypedValue::new("io.statefun.types/long", &[8, 1][..]).unwrap();
        let broken = Outer::from_typed(broken).unwrap_err().to_string();
        assert!(broken.contains("where io.statefun.types/long is wanted"), "{broken}");
    }

    /// Whatever names there are around it, the macro means its own.
    #[test]
    fn names_around_the_macro_do_not_reach_into_it() {
        #[derive(Debug, PartialEq)]
        struct R;
        #[allow(dead_code)]
        struct Result;
        #[allow(dead_code)]
        trait FnOnce {}
        #[allow(dead_code)]
        fn variant() {}

        crate::messages! {
            #[derive(Debug, PartialEq)]
            enum Only { R(R) }
        }

        crate::messages! {
            #[derive(Debug)]
            pub(crate) enum Outer { Only(Only) carries [R] }
        }

        assert_eq!(Only::pack(R).unpack(|R| 7), Ok(7));
        assert_eq!(Outer::pack(R).unpack(|R| 7), Ok(7));
        assert_eq!(Outer::from(Only::from(R)).unpack(|only: &Only| *only == Only::R(R)), Ok(true));
    }
}

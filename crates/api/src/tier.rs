//! `Tier`: the order in which groups of policies decide.

use model::policy::Order;
use model::tier::{Tier as Model, TierAction};

use crate::invalid::{Fault, word};
use crate::object::kind;
use crate::wire::{Decimal, wire};
use crate::{Invalid, Object};

/// A group of policies that decides before the next one does.
pub type Tier = Object<TierSpec>;

wire! {
    /// The spec of a [`Tier`].
    pub struct TierSpec {
        /// The place among tiers; absent is last.
        order: Option<Decimal> = "order",
        /// What happens to packets that no rule matches: `Deny` or `Pass`.
        default_action: Option<String> = "defaultAction",
    }
}

kind! { TierSpec: "Tier" "tiers" cluster }

impl TryFrom<&Tier> for Model {
    type Error = Invalid;

    fn try_from(object: &Tier) -> Result<Self, Invalid> {
        let read = || {
            let number = object.spec.order.map(|order| order.0);
            let order = number.map_or(Ok(Order::LAST), Order::new);
            let order =
                order.map_err(|error| Fault::new("order", number.unwrap_or_default(), error))?;
            let actions = [("Deny", TierAction::Deny), ("Pass", TierAction::Pass)];
            let action = object.spec.default_action.as_deref();
            let default_action = word("defaultAction", action, &actions, TierAction::Deny)?;
            check_fixed(object.name(), order, default_action)?;
            Ok(Self { name: object.name().to_owned(), order, default_action })
        };
        read().map_err(|fault| object.faulty(fault))
    }
}

/// The tiers that every cluster has are what everybody expects of them.
fn check_fixed(name: &str, order: Order, action: TierAction) -> Result<(), Fault> {
    let fixed = Model::fixed();
    let Some((_, number, fixed_action)) = fixed.iter().find(|(fixed, ..)| *fixed == name) else {
        return Ok(());
    };
    if Order::new(*number) != Ok(order) {
        let problem = format!("is not the fixed one of tier {name}: use {number}");
        return Err(Fault::new("order", order.number(), problem));
    }
    if action != *fixed_action {
        let problem = format!("is not the fixed one of tier {name}: use {fixed_action:?}");
        return Err(Fault::new("defaultAction", format!("{action:?}"), problem));
    }
    Ok(())
}

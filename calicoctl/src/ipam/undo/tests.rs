//! What the way back does with objects that others have written since.

use std::collections::BTreeMap;
use std::time::Duration;

use model::block::{Attributes, Handle, Owner};
use model::id::HandleId;
use model::time::WallTime;

use super::*;

fn clock() -> Clock {
    Clock { now: WallTime(1_795_392_000_000_000_000), cooldown: Duration::ZERO }
}

fn holder(name: &str) -> Attributes {
    Attributes { handle: Some(HandleId(name.to_owned())), ..Attributes::default() }
}

/// A block of node a in which the named holders have the first addresses, at a revision.
fn block(holders: &[&str], revision: &str) -> Stored {
    let owner = Owner::Host("a".parse().unwrap());
    let mut block = slots::fresh("10.0.0.0/30".parse().unwrap(), owner, clock().now).unwrap();
    for (ordinal, name) in (0..).zip(holders).filter(|(_, name)| !name.is_empty()) {
        block = slots::allocate(&block, ordinal, &holder(name), clock()).unwrap();
    }
    let mut object = api::IpamBlock::from_model(&block);
    object.metadata.resource_version = Some(revision.to_owned());
    Stored::Block(Box::new(object))
}

fn handle(count: u32, revision: &str) -> Stored {
    let blocks = BTreeMap::from([("10.0.0.0/30".parse().unwrap(), count)]);
    let handle = Handle { id: HandleId("c1".to_owned()), blocks, is_deleted: false };
    let mut object = api::IpamHandle::from_model(&handle);
    object.metadata.resource_version = Some(revision.to_owned());
    Stored::Handle(Box::new(object))
}

/// A step that changed `before` to an object of this revision.
fn step(before: &Stored, revision: Option<&str>) -> Step {
    Step {
        what: String::new(),
        before: Some(to_json(before).unwrap()),
        created: None,
        revision: revision.map(str::to_owned),
    }
}

fn holders(action: Action) -> Vec<Option<String>> {
    let Action::Update(object) = action else { panic!("{action:?}") };
    let Record::Block(block) = object.record().unwrap() else { panic!("{object:?}") };
    let name = |ordinal| slots::holder(&block, ordinal).map(|one| one.handle.clone().unwrap().0);
    (0..4).map(name).collect()
}

fn decided(step: &Step, current: Option<&Stored>) -> Action {
    decide(step, current, &[], clock()).unwrap()
}

#[test]
fn released_addresses_return_to_their_holders() {
    let step = step(&block(&["c1", "c2"], "1"), Some("2"));
    let now = block(&["", "c2"], "2");
    let expected = [Some("c1".to_owned()), Some("c2".to_owned()), None, None];
    assert_eq!(holders(decided(&step, Some(&now))), expected);
}

#[test]
fn what_others_have_taken_since_stays_theirs() {
    let step = step(&block(&["c1", "c2"], "1"), Some("2"));
    let half = block(&["new", "", "c3"], "3");
    let expected = [Some("new".to_owned()), Some("c2".to_owned()), Some("c3".to_owned()), None];
    assert_eq!(holders(decided(&step, Some(&half))), expected);
    let all = block(&["new", "newer"], "4");
    let action = decided(&step, Some(&all));
    let reason = "10.0.0.0, 10.0.0.1 went to others since".to_owned();
    assert_eq!(action, Action::Leave(reason));
}

#[test]
fn what_was_deleted_is_made_again_unless_others_have_its_addresses() {
    let step = step(&block(&["c1"], "1"), Some(""));
    let Action::Create(object) = decided(&step, None) else { panic!() };
    assert_eq!(object.revision(), "");
    let blocks = ["10.0.0.0/29".parse().unwrap()];
    let action = decide(&step, None, &blocks, clock()).unwrap();
    assert_eq!(action, Action::Leave("block 10.0.0.0/29 has these addresses now".to_owned()));
}

#[test]
fn handles_are_restored_only_if_nobody_wrote_them_since() {
    let step = step(&handle(2, "1"), Some("2"));
    assert_eq!(decided(&step, Some(&handle(1, "2"))), Action::Update(handle(2, "2")));
    let action = decided(&step, Some(&handle(3, "3")));
    assert_eq!(action, Action::Leave("it was written since".to_owned()));
}

#[test]
fn a_write_that_was_never_done_needs_no_way_back() {
    let step = step(&handle(2, "1"), None);
    assert_eq!(decided(&step, Some(&handle(2, "1"))), Action::Nothing);
}

#[test]
fn what_was_created_is_deleted_unless_others_wrote_it_since() {
    let made = handle(1, "5");
    let created = Some(to_json(&made).unwrap());
    let step = Step { what: String::new(), before: None, created, revision: Some("5".to_owned()) };
    assert_eq!(decided(&step, Some(&made)), Action::Delete(made.clone()));
    assert!(matches!(decided(&step, Some(&handle(1, "6"))), Action::Leave(_)));
    assert_eq!(decided(&step, None), Action::Nothing);
}

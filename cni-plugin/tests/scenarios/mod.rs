//! What containers go through.

mod failures;
mod lives;
mod pods;

use crate::World;

/// Runs all scenarios, one after the other, on the same node.
pub(crate) async fn run_all(world: &World) {
    failures::waits_until_the_datastore_is_open(world).await;
    lives::attaches_each_mix_of_families(world);
    lives::packets_go_both_ways(world);
    lives::follows_the_configuration(world);
    lives::follows_the_runtime(world).await;
    lives::works_with_host_local(world);
    lives::adds_twice(world);
    lives::deletes_whatever_there_is(world);
    lives::check_finds_each_difference(world);
    pods::writes_who_holds_the_addresses(world).await;
    pods::follows_annotations(world).await;
    pods::leaves_newer_containers_alone(world).await;
    pods::deletes_when_the_pod_is_gone(world).await;
    pods::gives_addresses_itself(world).await;
    failures::leave_nothing_behind(world);
    failures::of_the_last_step_leave_nothing_behind(world).await;
    failures::signals_leave_nothing_behind(world);
    failures::of_a_delete_do_not_stop_it(world).await;
}

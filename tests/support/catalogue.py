"""The 36 faults that a planet is expected to live through, and where each is a test.

A table: number, what happens, what a client then sees, the tests that show it, and what is not shown
yet. tests/lab/test_catalogue.py asserts that the tests exist; tests/soak/test_catalogue.py runs
them again and again.
"""

from typing import Final, NamedTuple

LAB, SOAK, SERVICE = "tests/lab/", "tests/soak/", "tests/service/"
ROUTES, LINKS = LAB + "test_catalogue_routes.py::", LAB + "test_catalogue_links.py::"
DEATHS, LOST = LAB + "test_deaths.py::", LAB + "test_index_lost.py::"
FAULTS, SLOW = (
    LAB + "test_faults.py::test_each_way_to_fail_is_felt_and_healed",
    SOAK + "test_faults.py::test_each_way_to_fail_is_felt_and_healed",
)
INDEX, WORKER = SERVICE + "test_index_", SERVICE + "test_worker.py::"
WARM = LOST + "test_warm_requests_see_nothing_and_cold_starts_still_work"


class Row(NamedTuple):
    """`tests` are pytest's ids, or their beginnings; `lacks` is what none of them shows, and why."""

    number: int
    fault: str
    seen: str
    tests: tuple[str, ...]
    lacks: str = ""


CATALOGUE: Final = (
    Row(1, "a POP is drained, then withdrawn", "requests end well, new ones go to the next POP",
        (LAB + "test_joined.py::test_a_drained_node_loses_nothing_and_comes_back", SERVICE + "test_rolling.py::test_a_rolling_restart_of_every_node_loses_nothing")),
    Row(2, "the route moves under an idle connection", "reset at once, and the next POP answers the next",
        (ROUTES + "test_an_idle_connection_is_reset_when_its_route_moves",)),
    Row(3, "the route moves under a small answer", "all of it or none",
        (ROUTES + "test_a_small_answer_comes_whole_or_not_at_all_when_the_route_moves",)),
    Row(4, "the route moves under a large answer", "cut short, and seen to be",
        (ROUTES + "test_a_large_answer_that_the_route_cuts_short_is_seen_to_be_short",)),
    Row(5, "no POP is left that announces", "new ones are told at once, open ones wait",
        (ROUTES + "test_without_any_route_new_ones_are_told_at_once_and_open_ones_wait",)),
    Row(6, "a node's packets vanish", "silence, then within 3 s the next POP",
        (LAB + "test_faults.py::test_a_vanished_machine_leaves_its_routers_carrier_up", LAB + "test_topologies.py::test_bfd_misses_a_silent_node_and_nobody_else")),
    Row(7, "a link is down and its route kept", "silence; what was open goes on afterwards",
        (ROUTES + "test_a_cut_link_whose_route_is_kept_is_silence_and_open_connections_outlive_it",),
        "who withdraws it: between POPs nobody does before BGP's hold time of 90 s, unless the planet says bfd: wan"),
    Row(8, "a link is down and the route moved", "open ones are reset, new ones go to the next POP",
        (ROUTES + "test_who_was_served_by_a_pop_that_vanished_is_reset_by_the_next",)),
    Row(9, "the proxy is dead and the address announced", "nobody is refused; back within 2 s, or withdrawn",
        (DEATHS + "test_a_proxy_killed_under_load_costs_only_what_was_in_it", DEATHS + "test_a_proxy_that_dies_twice_is_withdrawn",
         SERVICE + "test_announce.py::test_one_exit_is_forgiven_a_second_withdraws_at_once")),
    Row(10, "the proxy is stopped", "within 2.5 s the next POP",
        (DEATHS + "test_a_proxy_whose_loop_is_blocked_is_withdrawn_and_replaced",)),
    Row(11, "the proxy's event loop is blocked", "as when it is stopped; the operator is told which function it is",
        (DEATHS + "test_a_proxy_whose_loop_is_blocked_is_withdrawn_and_replaced",
         SERVICE + "test_loopwatch.py::test_who_blocks_the_loop_is_named_once", SERVICE + "test_loopwatch.py::test_a_stopped_process_blames_nobody")),
    Row(12, "one of two doors of a POP leaves and comes back", "its own flows are reset, new ones are served",
        (LAB + "test_topologies.py::test_one_of_them_withdrawn_leaves_all_to_the_other", SOAK + "test_ecmp_flows.py::test_flows_of_the_door_that_stays_stay"),
        "weights: a router has no way to be told that one door is larger"),
    Row(13, "a link flaps once a second", "no route moves; at most 1 % of the answers are errors",
        (ROUTES + "test_a_link_that_flaps_moves_no_route_and_costs_next_to_nothing",)),
    Row(14, "every POP is drained, sick or full", "somebody answers: served by who can, else told why, and Retry-After",
        (ROUTES + "test_where_every_pop_is_drained_the_nearest_says_so_until_one_is_back", SERVICE + "test_last_one.py",
         LAB + "test_full.py::test_a_full_planet_refuses_at_once"),
        "one that hears nobody: it may be cut off, and stays away. All but the last may be away for being sick at once"),
    Row(15, "two halves of the planet are parted", "each serves what it has; across: refused at once, and no loop",
        (LAB + "test_partition.py::test_each_side_serves_what_it_has_and_they_converge", LAB + "test_partition.py::test_who_asks_across_the_cut_is_told_in_time")),
    Row(16, "answers of one POP get lost", "told within the deadline, then elsewhere, and no flapping",
        (LINKS + "test_who_hears_nothing_back_goes_elsewhere_and_stays_there",)),
    Row(17, "200 ms more between two POPs", "far only where the deadline allows it",
        (LINKS + "test_a_far_worker_is_chosen_only_where_the_deadline_allows",)),
    Row(18, "5 % and 30 % of packets are lost", "late, never wrong",
        (LINKS + "test_loss_makes_late_and_never_wrong",)),
    Row(19, "1 Mbit/s while weights travel", "what is loaded is served; the weights come later",
        (LINKS + "test_a_narrow_link_delays_weights_and_nothing_that_is_loaded",)),
    Row(20, "a link that carries 1280 bytes, and says so or not", "a large body passes",
        (LINKS + "test_a_large_body_passes_a_link_that_carries_small_packets",)),
    Row(21, "a forwarding loop", "508, and never a second hop",
        (SERVICE + "test_fleet.py::test_what_the_fleet_has_forwarded_does_not_come_in_again", LAB + "test_partition.py::test_who_asks_across_the_cut_is_told_in_time")),
    Row(22, "Redis is killed", "nothing", (WARM + "[killed and restarted empty]", LOST + "test_no_request_can_wait_for_redis")),
    Row(23, "Redis is stopped", "nothing", (WARM + "[frozen]",)),
    Row(24, "Redis is flushed", "nothing", (WARM + "[flushed]",)),
    Row(25, "Redis refuses: read-only, out of memory, another password", "nothing",
        (WARM + "[read-only]", WARM + "[another password]", SLOW + "[redis.eu-out-of-memory]", INDEX + "faults.py::test_a_full_redis")),
    Row(26, "Redis comes back from an old dump", "nothing: nodes tell it again what they have, and take back what they have not", (WARM + "[restored from an old dump]",
        INDEX + "faults.py::test_an_old_dump_is_another_epoch", INDEX + "past.py::test_a_dump_of_the_same_epoch_brings_back_nothing_that_is_gone")),
    Row(27, "the index is poisoned", "nothing: the last good entries stay",
        (INDEX + "poison.py::test_poison_changes_nothing_and_is_counted", INDEX + "poison.py::test_a_node_that_starts_among_poison_reads_what_is_good")),
    Row(28, "two owners of one lease", "bytes are spent twice, nothing is wrong",
        (SERVICE + "test_split_lease.py::test_two_leaders_of_one_fetch_cost_bytes_and_nothing_else",)),
    Row(29, "a worker is killed in mid-inference", "503 or once more elsewhere; the worker comes back",
        (DEATHS + "test_a_worker_killed_under_load_costs_only_what_was_in_it",)),
    Row(30, "a run without end", "504 at its deadline; neighbours are answered",
        (WORKER + "test_a_run_past_its_deadline_is_ended_and_the_worker_goes_on", WORKER + "test_a_run_that_nothing_can_end_ends_the_process",
         WORKER + "test_a_cheap_model_does_not_wait_behind_a_busy_one")),
    Row(31, "a run wants more memory than there is", "that request fails; neighbours are answered",
        (SERVICE + "test_worker_faults.py::test_requests_for_more_memory_than_there_is_fail_alone", SERVICE + "test_parent.py::test_a_worker_has_a_memory_cap")),
    Row(32, "a device is lost", "its worker ends; others are asked; no CPU in its place",
        (SERVICE + "test_worker_faults.py::test_a_worker_whose_device_is_lost_exits_so_that_others_are_asked",
         SERVICE + "test_local_worker_acts.py::test_a_device_that_is_not_there_is_named", SERVICE + "test_fleet.py::test_a_worker_that_dies_is_failed_over_and_comes_back"),
        "a real device that is lost: the runtime's error is raised by the test"),
    Row(33, "the disk is full", "what lies on it is served; nothing half is kept",
        (FAULTS + "[fra-a-full]", SERVICE + "test_store.py::test_a_full_disk_is_no_space_before_the_first_byte_and_leaves_nothing")),
    Row(34, "a bit of a blob flips", "never served: set aside and brought again",
        (LINKS + "test_a_bit_that_flipped_on_a_disk_is_never_served", SERVICE + "test_bit_flip.py", DEATHS + "test_a_corrupted_blob_is_never_served",
         SERVICE + "test_scrub.py::test_a_medium_that_changes_without_a_write")),
    Row(35, "a clock that is an hour off", "nothing while it is ahead; alone while it is behind its certificate",
        (SLOW + "[fra-a-clock-ahead]", SLOW + "[fra-a-clock-behind]")),
    Row(36, "netlab is killed in mid-set-up; two at once", "the next one cleans up; the second says so",
        (LAB + "test_netlab_cycle.py::test_up_that_is_killed_is_swept_by_down", LAB + "test_netlab_cycle.py::test_up_clears_what_a_dead_lab_left",
         LAB + "test_netlab_routes.py::test_a_second_lab_is_not_started")),
)  # fmt: skip


def paths(*rows: Row) -> tuple[str, ...]:
    """The files of these rows' tests."""
    return tuple(sorted({test.partition("::")[0] for row in rows for test in row.tests}))

//! End-to-end tests on a real city of four agencies: the shipped program, CometBFT, nats-server, the demo's data.
//!
//! Most tests share one city and have their own agreements, datasets and writers in it; those that kill things have a
//! second one. They run one after another; `cargo test --test e2e -- queries` runs one area.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod agreement_tools;
mod agreements;
mod altered;
mod api;
mod attacks;
mod audit;
mod bad_input;
mod break_glass;
mod bundle;
mod checkpoints;
mod citizens;
mod commands;
mod complaint;
mod connect;
mod crash;
mod epochs;
mod executors;
mod feed;
mod forged;
mod hosted;
mod in_between;
mod keys;
mod kills;
mod ledger;
mod observe;
mod oidc;
mod outside;
mod queries;
mod receipts;
mod revocation;
mod sources;
mod streams;
mod subjects;
mod subscriptions;
mod supervision;
mod totals;
mod tour;
mod walls;
mod whole;
mod writes;

use concordat_tests::harness::{City, Workplace, servers};
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The cities of this run, each made when the first test asks for it.
pub struct World {
    place: OnceLock<Workplace>,
    shared: OnceLock<City>,
    second: OnceLock<City>,
}

impl World {
    fn place(&self) -> &Workplace {
        self.place.get_or_init(Workplace::new)
    }

    /// The city that tests share.
    pub fn shared(&self) -> &City {
        self.shared.get_or_init(|| self.place().city("1"))
    }

    /// The city in which things are killed.
    pub fn second(&self) -> &City {
        self.second.get_or_init(|| self.place().city("2"))
    }

    /// A new, empty folder.
    pub fn folder(&self, name: &str) -> std::path::PathBuf {
        self.place().folder(name)
    }
}

type Test = fn(&World);
type Times = Arc<Mutex<BTreeMap<&'static str, Duration>>>;

/// All tests in their order: the last ones look at what the others left.
const TESTS: &[(&str, &str, Test)] = &[
    // Before the tour, which publishes the whole of grid's file.
    ("feed", "a_consumer_follows_what_its_clause_opens", feed::a_consumer_follows_what_its_clause_opens),
    ("commands", "adapters_say_where_they_stand", commands::adapters_say_where_they_stand),
    ("tour", "every_check_of_the_tour_is_ok", tour::every_check_of_the_tour_is_ok),
    ("tour", "status_shows_every_process", tour::status_shows_every_process),
    ("queries", "released_rows_are_those_of_the_file", queries::released_rows_are_those_of_the_file),
    ("queries", "select_order_and_limit", queries::select_order_and_limit),
    ("queries", "denials_name_clause_and_missing_term", queries::denials_name_clause_and_missing_term),
    ("queries", "mistakes_are_usage_errors_that_name_the_nearest_word", queries::mistakes_are_usage_errors),
    ("queries", "one_idempotency_key_is_one_operation", queries::one_idempotency_key_is_one_operation),
    ("queries", "a_denial_is_recorded_and_why_explains_it", queries::a_denial_is_recorded_and_why_explains_it),
    ("queries", "a_quota_ends", queries::a_quota_ends),
    ("totals", "the_groups_are_those_of_the_file", totals::the_groups_are_those_of_the_file),
    ("totals", "no_row_is_told_under_a_clause_of_totals", totals::no_row_is_told_under_a_clause_of_totals),
    ("totals", "totals_have_a_receipt_and_meet_nobody", totals::totals_have_a_receipt_and_meet_nobody),
    ("writes", "a_record_is_changed_under_an_agreement", writes::a_record_is_changed_under_an_agreement),
    ("writes", "what_no_clause_permits_changes_nothing", writes::what_no_clause_permits_changes_nothing),
    ("writes", "one_idempotency_key_writes_once", writes::one_idempotency_key_writes_once),
    ("writes", "acknowledged_writes_survive_kills", writes::acknowledged_writes_survive_kills),
    (
        "attacks",
        "a_hidden_record_answers_like_one_that_is_not_there",
        attacks::a_hidden_record_answers_like_one_that_is_not_there,
    ),
    (
        "attacks",
        "what_travels_tells_a_hidden_row_from_none_by_nothing",
        attacks::what_travels_tells_a_hidden_row_from_none_by_nothing,
    ),
    (
        "attacks",
        "a_document_drops_no_role_that_its_agency_always_needs",
        attacks::a_document_drops_no_role_that_its_agency_always_needs,
    ),
    ("attacks", "an_old_approval_resumes_nothing", attacks::an_old_approval_resumes_nothing),
    ("in_between", "a_relay_reads_no_row", in_between::a_relay_reads_no_row),
    (
        "in_between",
        "a_relay_that_alters_swaps_or_repeats_gets_nothing_believed",
        in_between::a_relay_that_alters_swaps_or_repeats_gets_nothing_believed,
    ),
    (
        "audit",
        "a_decision_is_made_again_and_a_forged_one_is_told",
        audit::a_decision_is_made_again_and_a_forged_one_is_told,
    ),
    ("audit", "both_parties_report_the_same_of_an_agreement", audit::both_parties_report_the_same_of_an_agreement),
    ("audit", "a_provider_s_report_counts_its_feeds", audit::a_provider_s_report_counts_its_feeds),
    ("streams", "a_forged_request_is_refused", streams::a_forged_request_is_refused),
    ("streams", "roles_of_an_unrecorded_map_are_refused", streams::roles_of_an_unrecorded_map_are_refused),
    ("streams", "a_replayed_request_discloses_nothing_new", streams::a_replayed_request_discloses_nothing_new),
    ("streams", "another_agency_gets_nothing", streams::another_agency_gets_nothing),
    ("walls", "nobody_manages_or_reads_anothers_streams", walls::nobody_manages_or_reads_anothers_streams),
    ("walls", "nobody_reaches_anothers_own_account", walls::nobody_reaches_anothers_own_account),
    ("walls", "nobody_speaks_or_listens_as_another", walls::nobody_speaks_or_listens_as_another),
    (
        "walls",
        "the_manager_serves_an_agency_its_own_stream_only",
        walls::the_manager_serves_an_agency_its_own_stream_only,
    ),
    ("feed", "anybody_follows_the_traffic", feed::anybody_follows_the_traffic),
    ("feed", "a_stranger_reads_no_feed", feed::a_stranger_reads_no_feed),
    (
        "subscriptions",
        "rows_and_fields_of_a_created_one",
        subscriptions::a_created_subscription_sees_its_rows_and_fields_only,
    ),
    (
        "subscriptions",
        "one_dead_consumer_among_20",
        subscriptions::one_dead_consumer_among_20_changes_nothing_for_the_others,
    ),
    ("altered", "a_feed_shows_what_its_duties_leave", altered::a_feed_shows_what_its_duties_leave),
    (
        "altered",
        "a_delay_outlives_a_restart_and_keeps_the_order",
        altered::a_delay_outlives_a_restart_and_keeps_the_order,
    ),
    ("altered", "a_renewal_that_opens_more_is_not_applied", altered::a_renewal_that_opens_more_is_not_applied),
    (
        "sources",
        "a_refused_row_is_replayed_by_the_corrected_mapping",
        sources::a_refused_row_is_replayed_by_the_corrected_mapping,
    ),
    ("sources", "a_running_adapter_is_paused_and_resumed", sources::a_running_adapter_is_paused_and_resumed),
    ("sources", "a_killed_sink_loses_nothing", sources::a_killed_sink_loses_nothing),
    ("subscriptions", "seeking_replays_the_same_messages", subscriptions::seeking_replays_the_same_messages),
    (
        "subscriptions",
        "events_go_on_where_they_broke_off",
        subscriptions::a_stream_of_events_goes_on_where_it_broke_off,
    ),
    (
        "subscriptions",
        "a_suspension_closes_the_stream_and_loses_nothing",
        subscriptions::a_suspension_closes_the_stream_and_loses_nothing,
    ),
    ("forged", "forged_deliveries_are_refused", forged::forged_deliveries_are_refused_and_good_ones_go_on),
    (
        "complaint",
        "a_broken_promise_suspends_bounded_evidence_until_both_resume",
        complaint::a_broken_promise_suspends_bounded_evidence_until_both_resume,
    ),
    ("bad_input", "intake_names_what_it_refuses", bad_input::intake_names_what_it_refuses),
    ("bad_input", "a_public_feed_and_bad_rows", bad_input::bad_rows_are_named_and_a_public_feed_shows_the_good_ones),
    ("bad_input", "a_full_stream_says_so", bad_input::a_full_stream_says_so_and_keeps_what_it_acknowledged),
    (
        "commands",
        "refused_lines_are_named_and_the_rest_is_published",
        commands::refused_lines_are_named_and_the_rest_is_published,
    ),
    ("commands", "a_named_file_goes_on_where_it_stopped", commands::a_named_file_goes_on_where_it_stopped),
    ("commands", "a_dataset_is_registered_once", commands::a_dataset_is_registered_once),
    ("commands", "dead_letters_keep_the_original_bytes", commands::dead_letters_keep_the_original_bytes),
    ("commands", "a_subscription_lives_from_create_to_delete", commands::a_subscription_lives_from_create_to_delete),
    ("commands", "a_taken_agreement_version_is_named", commands::a_taken_agreement_version_is_named),
    ("agreements", "lint_names_place_and_nearest_word", agreements::lint_names_place_and_nearest_word),
    ("agreements", "approvals_count_once_a_key_and_for_these_terms", agreements::approvals_count_once_a_key),
    ("agreements", "only_parties_propose", agreements::only_parties_propose),
    ("agreements", "suspended_resumes_and_revoked_is_final", agreements::suspended_resumes_and_revoked_is_final),
    ("agreements", "versions_only_rise", agreements::versions_only_rise),
    ("agreements", "proposals_at_once_are_all_taken", agreements::proposals_at_once_are_all_taken),
    (
        "agreement_tools",
        "a_document_is_made_checked_and_compared_without_a_node",
        agreement_tools::a_document_is_made_checked_and_compared_without_a_node,
    ),
    (
        "agreement_tools",
        "lint_and_preview_see_the_rows_that_police_holds",
        agreement_tools::lint_and_preview_see_the_rows_that_police_holds,
    ),
    (
        "agreement_tools",
        "who_can_read_and_explain_speak_of_what_is_in_force",
        agreement_tools::who_can_read_and_explain_speak_of_what_is_in_force,
    ),
    (
        "agreement_tools",
        "recorded_requests_are_decided_under_the_next_version",
        agreement_tools::recorded_requests_are_decided_under_the_next_version,
    ),
    (
        "agreement_tools",
        "a_proposal_is_rejected_and_dates_are_renewed",
        agreement_tools::a_proposal_is_rejected_and_dates_are_renewed,
    ),
    (
        "break_glass",
        "an_override_gives_rows_at_once_and_is_explained_later",
        break_glass::an_override_gives_rows_at_once_and_is_explained_later,
    ),
    (
        "break_glass",
        "a_missed_review_stops_the_clause_until_it_is_made",
        break_glass::a_missed_review_stops_the_clause_until_it_is_made,
    ),
    (
        "break_glass",
        "a_record_that_does_not_come_ends_releases_under_a_promise",
        break_glass::a_record_that_does_not_come_ends_releases_under_a_promise,
    ),
    ("revocation", "no_read_is_released_after_a_suspension", revocation::no_read_is_released_after_a_suspension),
    ("ledger", "bad_batches_are_refused", ledger::bad_batches_are_refused),
    ("ledger", "bad_acts_are_refused", ledger::bad_acts_are_refused),
    ("ledger", "what_cannot_be_read_is_refused", ledger::what_cannot_be_read_is_refused),
    ("observe", "health_and_metrics_answer", observe::health_and_metrics_answer),
    ("observe", "a_request_id_goes_through_all_processes", observe::a_request_id_goes_through_all_processes),
    ("observe", "errors_are_problems", observe::errors_are_problems),
    (
        "api",
        "every_operation_of_the_document_answers_with_problems",
        api::every_operation_of_the_document_answers_with_problems,
    ),
    ("api", "answers_are_what_the_document_says", api::answers_are_what_the_document_says),
    ("api", "the_catalogue_is_searched_and_linked", api::the_catalogue_is_searched_and_linked),
    ("api", "the_page_for_applications_runs_as_it_stands", api::the_page_for_applications_runs_as_it_stands),
    (
        "api",
        "the_rust_client_believes_nothing_that_is_not_proven",
        api::the_rust_client_believes_nothing_that_is_not_proven,
    ),
    ("oidc", "people_sign_in_at_a_real_issuer", oidc::people_sign_in_at_a_real_issuer),
    ("oidc", "roles_count_while_the_ledger_names_their_map", oidc::roles_count_while_the_ledger_names_their_map),
    ("citizens", "a_citizen_sees_who_looked_and_nobody_else", citizens::a_citizen_sees_who_looked_and_nobody_else),
    ("receipts", "a_receipt_is_verified_with_nothing_else", receipts::a_receipt_is_verified_with_nothing_else),
    ("receipts", "a_denial_has_a_receipt", receipts::a_denial_has_a_receipt),
    ("receipts", "any_flipped_byte_is_found", receipts::any_flipped_byte_is_found),
    ("receipts", "another_chains_trust_proves_nothing", receipts::another_chains_trust_proves_nothing),
    ("checkpoints", "a_receipt_becomes_final", checkpoints::a_receipt_becomes_final),
    (
        "checkpoints",
        "an_invented_operation_is_disputed_before_the_next_cosignature",
        checkpoints::an_invented_operation_is_disputed_before_the_next_cosignature,
    ),
    (
        "checkpoints",
        "a_person_disputes_once_and_only_what_names_the_agency",
        checkpoints::a_person_disputes_once_and_only_what_names_the_agency,
    ),
    ("checkpoints", "three_of_four_make_it_final", checkpoints::three_of_four_make_it_final),
    (
        "outside",
        "a_light_client_verifies_a_record",
        outside::a_light_client_verifies_a_record_and_refuses_an_altered_one,
    ),
    ("bundle", "a_case_is_one_file_that_anybody_checks", bundle::a_case_is_one_file_that_anybody_checks),
    ("outside", "an_outsider_reads_the_exported_log", outside::an_outsider_reads_the_exported_log),
    ("outside", "checkpoints_are_time_stamped", outside::checkpoints_are_time_stamped),
    ("subjects", "a_list_is_complete_and_nobody_is_proven", subjects::a_list_is_complete_and_nobody_is_proven),
    ("subjects", "a_sealed_access_opens_on_its_date", subjects::a_sealed_access_is_counted_and_opens_on_its_date),
    ("subjects", "a_killed_executor_leaves_no_access_out", subjects::a_killed_executor_leaves_no_access_out),
    ("subjects", "an_erased_person_is_nowhere", subjects::an_erased_person_is_nowhere_and_stays_so_after_a_restore),
    ("whole", "canaries_are_nowhere", whole::canaries_are_nowhere),
    ("whole", "four_nodes_have_the_same_app_hashes", whole::four_nodes_have_the_same_app_hashes),
    (
        "epochs",
        "a_validators_power_changes_and_receipts_are_believed_after_it",
        epochs::a_validators_power_changes_and_receipts_are_believed_after_it,
    ),
    (
        "executors",
        "another_takes_over_and_a_former_one_has_no_effect",
        executors::another_takes_over_and_a_former_one_has_no_effect,
    ),
    ("hosted", "a_hosted_provider_releases_on_proof_alone", hosted::a_hosted_provider_releases_on_proof_alone),
    ("kills", "nothing_acknowledged_is_lost_or_doubled", kills::nothing_acknowledged_is_lost_or_doubled),
    ("crash", "every_fail_point_of_the_ledger_recovers", crash::every_fail_point_of_the_ledger_recovers),
    ("crash", "one_validator_survives_random_kills", crash::one_validator_survives_random_kills),
    ("crash", "four_validators_survive_random_kills", crash::four_validators_survive_random_kills),
    ("crash", "a_full_disk_stops_one_node", crash::a_full_disk_stops_one_node_and_loses_nothing),
    ("crash", "a_torn_last_write_is_repaired", crash::a_torn_last_write_is_repaired),
    ("supervision", "folders_are_their_owners_only", supervision::folders_are_their_owners_only),
    ("supervision", "killed_processes_come_back", supervision::killed_processes_come_back),
    (
        "supervision",
        "a_killed_supervisor_takes_its_processes_along",
        supervision::a_killed_supervisor_takes_its_processes_along,
    ),
    ("supervision", "a_provider_that_is_down_is_named", supervision::a_provider_that_is_down_is_named),
    ("walls", "a_stream_server_that_does_not_sync_is_refused", walls::a_stream_server_that_does_not_sync_is_refused),
    ("keys", "a_release_key_is_exchanged_while_others_query", keys::a_release_key_is_exchanged_while_others_query),
    (
        "keys",
        "a_cosigning_key_is_exchanged_and_every_agency_signs_the_epoch",
        keys::a_cosigning_key_is_exchanged_and_every_agency_signs_the_epoch,
    ),
    (
        "keys",
        "a_node_runs_without_its_root_key_and_acts_are_signed_offline",
        keys::a_node_runs_without_its_root_key_and_acts_are_signed_offline,
    ),
    ("keys", "a_root_key_is_replaced_after_its_delay", keys::a_root_key_is_replaced_after_its_delay),
    ("keys", "a_gateway_key_in_a_token_signs_acts", keys::a_gateway_key_in_a_token_signs_acts),
    ("connect", "the_page_for_sources_runs_as_it_stands", connect::the_page_for_sources_runs_as_it_stands),
    ("supervision", "a_folder_has_one_supervisor", supervision::a_folder_has_one_supervisor),
    ("supervision", "a_taken_port_is_named", supervision::a_taken_port_is_named),
    ("supervision", "stop_leaves_no_process", supervision::stop_leaves_no_process),
];

fn trial(area: &'static str, name: &'static str, test: Test, world: &Arc<World>, times: &Times) -> Trial {
    let (world, times) = (Arc::clone(world), Arc::clone(times));
    Trial::test(format!("{area}::{name}"), move || {
        let begun = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| test(&world)));
        *times.lock().unwrap().entry(area).or_default() += begun.elapsed();
        result.map_err(|why| {
            let text = why.downcast_ref::<String>().map(String::as_str).or(why.downcast_ref::<&str>().copied());
            Failed::from(text.unwrap_or("it panicked").to_owned())
        })
    })
}

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // They share a city, and some of them its time.
    args.test_threads = Some(1);
    let missing = servers().err();
    if let Some(why) = &missing {
        if std::env::var("CI").is_ok_and(|v| v == "true") {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
        eprintln!("skipped: {} end-to-end tests: {why}", TESTS.len());
    }
    let world = Arc::new(World { place: OnceLock::new(), shared: OnceLock::new(), second: OnceLock::new() });
    let times = Times::default();
    let trials = TESTS.iter().map(|(area, name, test)| trial(area, name, *test, &world, &times));
    let trials = trials.map(|t| t.with_ignored_flag(missing.is_some())).collect();
    let conclusion = libtest_mimic::run(&args, trials);
    for (area, time) in times.lock().unwrap().iter() {
        println!("{area:<12} {:>6.1} s", time.as_secs_f64());
    }
    if let Some(place) = Arc::into_inner(world).and_then(|w| w.place.into_inner()) {
        place.end(conclusion.has_failed());
    }
    conclusion.exit_code()
}

//! Every attack, trap and mistake of verification that is known, by name, tried over sockets.
//!
//! [`CASES`] is the list: each case has the test that tries it, the file elsewhere that does, or the topic that it waits for. The tests stand in
//! the folder beside this file, by theme; they are tables of requests with the status that the provider sees and
//! the code that only the metric tells.

mod concatenation;
mod ids;
mod leaks;
mod mistakes;
mod proxying;
mod replay;
mod requests;
mod secrets;
mod signatures;
mod timestamps;

use std::{collections::BTreeSet, fs, path::Path};

/// What a case that cannot be tried yet begins with: what it waits for follows.
const PENDING: &str = "pending: ";
/// What a case that is tried elsewhere begins with: the file follows.
const ELSEWHERE: &str = "see ";

/// Each case and where it is tried.
#[rustfmt::skip] // One line a case: it is read as a table.
const CASES: &[(&str, &str)] = &[
    // Signatures.
    ("one byte-identical 401 for every failure of authenticity", "signatures::every_failure_of_authenticity_gets_the_same_401"),
    ("outcomes that depend on a secret cost the same instructions", "see tests/timing/timing.rs"),
    ("wrong secret", "signatures::a_wrong_secret_is_refused"),
    ("other body", "signatures::another_body_is_refused"),
    ("truncated or extended mac", "signatures::a_truncated_or_extended_mac_is_refused"),
    ("first or last byte of the mac wrong", "signatures::the_first_and_the_last_byte_of_a_mac_count"),
    ("upper-case hex", "signatures::upper_case_hex_is_taken_only_where_the_preset_says_so"),
    ("inner whitespace", "signatures::white_space_inside_a_signature_is_refused"),
    ("nul", "signatures::a_nul_never_gets_past_the_parser"),
    ("header missing, empty, sha256= with nothing", "signatures::a_missing_or_empty_signature_is_refused"),
    ("two header lines where one is expected", "signatures::two_header_lines_are_refused_whichever_is_right"),
    ("several signatures, one valid: stripe", "signatures::one_valid_signature_of_several_is_enough_for_stripe"),
    ("several signatures, one valid: standard webhooks", "signatures::one_valid_signature_of_several_is_enough_for_standard_webhooks"),
    ("several signatures, one valid: -previous headers", "signatures::either_of_two_signature_headers_is_enough_with_either_secret"),
    ("several signatures, one valid: pagerduty", "see tests/presets/vectors/pagerduty.json"),
    ("at most eight candidates", "signatures::at_most_eight_signatures_are_tried"),
    ("at most eight secrets", "signatures::at_most_eight_secrets_are_taken"),
    ("algorithm confusion", "signatures::the_message_never_names_the_algorithm"),
    ("algorithm confusion: jwt, public keys", "see src/verify/tests/jwt.rs"),
    ("base64 alphabets and non-canonical trailing bits", "signatures::base64_has_one_alphabet_and_one_writing"),
    ("non-ascii bytes: 401, not 500", "signatures::bytes_that_are_no_text_are_refused_and_break_nothing"),
    ("16 KB of candidates", "signatures::sixteen_kilobytes_of_candidates_are_refused_unread"),
    ("client certificates", "see tests/it/tls.rs"),

    // Secrets.
    ("empty or short secret refuses to start", "secrets::an_empty_or_short_secret_does_not_start"),
    ("one trailing newline of a file is stripped", "secrets::one_newline_at_the_end_of_a_file_is_stripped_and_no_more"),
    ("a byte order mark is an error", "secrets::a_byte_order_mark_in_a_secret_file_does_not_start"),
    ("whsec_ that does not decode", "secrets::a_whsec_secret_that_does_not_decode_does_not_start"),
    ("not_before and expires_at at verification time", "secrets::the_life_of_a_secret_is_held_against_the_time_of_the_request"),
    ("the same secret on two sources", "secrets::one_secret_at_two_sources_is_an_error_unless_both_say_so"),

    // Timestamps.
    ("digits only, no sign, no leading zero, no fraction", "timestamps::a_timestamp_is_digits_only"),
    ("missing", "timestamps::a_missing_timestamp_is_refused"),
    ("unit from the preset and never guessed", "timestamps::the_unit_is_never_guessed"),
    ("overflow is a refusal", "timestamps::no_number_overflows"),
    ("exact bounds, both sides", "timestamps::both_bounds_are_exact"),
    ("two timestamps", "timestamps::two_timestamps_are_refused"),
    ("stale and forged is not held", "timestamps::what_is_stale_is_held_only_if_it_is_authentic"),
    ("stale by a time of another length is not held", "timestamps::what_is_stale_by_a_time_of_another_length_is_not_held"),

    // Ambiguous concatenation.
    ("{t}.{nonce}.{body} re-split", "concatenation::a_body_cannot_be_re_split_into_the_nonce_of_mobility_work"),
    ("equal mac input implies equal parts", "concatenation::of_all_splits_of_one_signed_text_one_is_accepted"),
    ("{id}.{ts}.{body}: text inside a body as a fresh timestamp", "concatenation::text_inside_a_body_is_never_a_fresh_timestamp"),
    ("strict grammar of nonce and id", "concatenation::a_nonce_or_an_id_has_a_strict_grammar"),
    ("a template that can be read in two ways", "concatenation::a_scheme_that_could_be_read_in_two_ways_does_not_start"),

    // Replay.
    ("exact copy", "replay::an_exact_copy_is_a_duplicate"),
    ("copy with another unsigned delivery id", "replay::an_unsigned_delivery_id_is_part_of_no_key"),
    ("copy with one of two rotation signatures removed: headers", "replay::without_one_of_two_rotation_signatures_it_is_the_same_webhook"),
    ("copy with one of two rotation signatures removed: a list", "replay::one_of_two_signatures_of_a_list_removed_is_the_same_webhook"),
    ("after a restart", "replay::a_replay_after_a_restart_is_a_duplicate"),
    ("after lru eviction", "replay::a_replay_after_eviction_is_a_duplicate"),
    ("on another node", "pending: several nodes"),
    ("50 at once: exactly one forward", "replay::fifty_at_once_are_forwarded_once"),
    ("first attempt refused: the retry is taken", "replay::a_refused_first_attempt_leaves_the_way_to_its_retry"),
    ("first attempt refused by the upstream: the retry is taken", "replay::a_first_attempt_that_the_upstream_refused_is_tried_again"),
    ("first attempt failed in the store: the retry is taken", "replay::a_first_attempt_that_found_the_store_full_is_taken_later"),
    ("same id and another body: conflict, held", "replay::one_id_with_another_body_is_held_seen_and_released"),
    ("same nonce and another body", "replay::one_nonce_with_another_body_is_held"),
    ("same id on another source: both", "replay::one_id_at_two_sources_is_two_events"),
    ("as long as a copy is fresh its key is known", "replay::a_webhook_from_the_future_is_known_until_it_is_stale"),

    // JSON ids.
    ("duplicate keys", "ids::a_key_that_stands_twice_is_no_id"),
    ("numbers: 1, 1.0, 1e0, beyond 2^53", "ids::a_number_has_one_writing"),
    ("escapes", "ids::escapes_are_read_before_ids_are_compared"),
    ("lone surrogates", "ids::a_lone_surrogate_is_no_id"),
    ("byte order mark, text behind the document, no json at all", "ids::what_is_not_plain_json_has_no_id"),
    ("missing, oversized, composite", "ids::a_missing_oversized_or_composite_id_falls_back"),
    ("depth, 1 MB of [", "ids::no_depth_overflows_the_stack"),

    // Handshakes.
    ("a signed handshake is verified first and echoes a plain token only", "proxying::a_challenge_is_answered_only_if_it_is_signed_and_plain"),
    ("a challenge reply that signs caller-chosen text (x, zoom)", "proxying::a_reply_that_signs_for_strangers_signs_no_event"),

    // Leaks.
    ("secrets, tokens and signatures in logs, metrics, admin answers", "leaks::no_secret_token_or_signature_is_seen_again"),
    ("secrets in debug output and in messages about a configuration", "leaks::a_configuration_shows_no_secret_whatever_is_wrong_with_it"),
    ("secrets in panics", "see tests/it/canaries.rs"),
    ("redacted values in admin answers, operations, audit lines and tools; bodies at rest", "leaks::what_is_redacted_is_seen_by_nobody_and_no_body_lies_open"),
    ("control characters in logged values", "leaks::no_request_breaks_a_line_of_the_log"),
    ("signature headers in admin answers", "leaks::the_admin_api_shows_no_signature_and_no_credential"),
    ("x-github-encoded-secret is stripped and never stored", "leaks::a_header_that_carries_a_secret_is_neither_stored_nor_forwarded"),
    ("timing: equal path for unknown ids", "see tests/timing/cases.rs"),

    // Proxying.
    ("inbound hookward-* in any case, or with _", "proxying::only_hookward_says_hookward_headers"),
    ("what is added replaces what came", "proxying::what_hookward_adds_replaces_what_came_and_keeps_it_by_another_name"),
    ("connection: x-signature", "proxying::a_header_named_in_connection_is_a_contradiction"),
    ("redirects not followed", "proxying::a_redirect_is_not_followed"),
    ("upstream answers bounded", "proxying::a_huge_answer_of_the_upstream_is_bounded"),
    ("upstream headers stay inside", "proxying::headers_of_the_upstream_stay_inside"),
    ("host allow-list of the admin api", "proxying::the_admin_api_refuses_a_foreign_host"),
    ("non-loopback bind without a token", "proxying::the_admin_api_is_not_reachable_from_elsewhere_without_a_token"),
    ("admin on its own listener", "proxying::the_admin_api_is_apart_from_the_public_listener"),
    ("no cookies, csp, downloads as octet-stream with nosniff", "proxying::a_body_is_a_download_that_no_browser_renders"),
    ("event bodies shown as text only", "pending: dashboard"),

    // Mistakes seen in other gateways.
    ("verified the re-serialised json", "mistakes::the_bytes_received_are_verified_and_not_the_json_written_anew"),
    ("a missing dedupe key collapsed all such events into one", "mistakes::events_without_the_id_do_not_become_one"),
    ("the dedupe id was global across sources", "replay::one_id_at_two_sources_is_two_events"),
    ("a body over the limit was cut when chunked", "mistakes::a_chunked_body_over_the_limit_is_refused_and_not_cut"),
    ("a declared body over the limit was read", "mistakes::a_declared_body_over_the_limit_is_refused_before_it_is_sent"),
    ("200 for a verified event that no route wanted, without storing it", "mistakes::an_unknown_event_type_is_stored_and_forwarded"),
    ("200 or 202 although the signature was wrong", "mistakes::a_wrong_signature_never_gets_a_success"),
    ("204 to the provider when the upstream said 500", "mistakes::the_provider_hears_of_a_failure_behind_a_proxy"),
    ("an ipv6 address in an allow-list became a /32", "mistakes::an_address_of_ipv6_in_an_allow_list_is_that_address"),
    ("an unknown verifier type fell back to none", "mistakes::an_unknown_kind_of_proof_does_not_start"),
    ("a verifier type left out fell back to none", "mistakes::an_algorithm_left_out_is_still_one"),
    ("only the last of several v1= was tried", "signatures::one_valid_signature_of_several_is_enough_for_stripe"),
    ("content-type forced to json and provider headers lost", "mistakes::content_type_and_the_providers_headers_are_kept"),
    ("form or gzip bodies changed", "mistakes::form_and_gzip_bodies_are_unchanged"),
    ("the first x-forwarded-for entry trusted", "mistakes::the_first_entry_of_x_forwarded_for_is_not_trusted"),
    ("the right-most untrusted x-forwarded-for entry", "mistakes::the_right_most_untrusted_entry_of_x_forwarded_for_is_the_client"),
    ("dedupe decided before verification", "mistakes::copies_are_looked_for_after_verification_only"),
    ("events stuck \"scheduled\" after a store failure", "mistakes::a_failing_store_leaves_no_event_under_way_for_ever"),
    ("events stuck \"scheduled\" after a restart", "mistakes::an_attempt_cut_by_a_restart_is_made_again"),
    ("paths folded before they were matched", "mistakes::a_path_is_matched_byte_for_byte"),
];

/// Every test function of the folder, as `theme::name`.
fn tests_there_are() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/threats");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the folder beside this file") {
        let path = entry.expect("an entry").path();
        let theme = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        let text = fs::read_to_string(&path).expect("a source");
        let mut is_test = false;
        for line in text.lines() {
            let name = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
            if let Some(name) = name.and_then(|rest| rest.split('(').next()).filter(|_| is_test) {
                found.insert(format!("{theme}::{name}"));
            }
            is_test = line == "#[test]" || line.starts_with("#[tokio::test");
        }
    }
    found
}

#[test]
fn every_case_has_a_test_or_says_what_it_waits_for() {
    let there_are = tests_there_are();
    assert!(there_are.len() > 60, "the tests were not found: {there_are:?}");
    let mut cases = BTreeSet::new();
    let mut named = BTreeSet::new();
    for (case, place) in CASES {
        assert!(cases.insert(*case), "`{case}` stands twice");
        if let Some(topic) = place.strip_prefix(PENDING) {
            assert!(!topic.is_empty(), "`{case}` waits for nothing");
        } else if let Some(file) = place.strip_prefix(ELSEWHERE) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            assert!(path.is_file(), "`{case}`: there is no {file}");
        } else {
            assert!(there_are.contains(*place), "`{case}`: there is no test {place}");
            named.insert((*place).to_owned());
        }
    }
    let unnamed: Vec<_> = there_are.difference(&named).collect();
    assert!(unnamed.is_empty(), "these tests try no case of the table: {unnamed:?}");
}

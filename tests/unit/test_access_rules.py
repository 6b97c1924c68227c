"""The access rules of the provider, row by row, and the tests that show each.

Whoever adds a rule adds its row; a row without a test, or with one that is gone, fails here.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

#: A rule in short, and the names of its tests.
RULES: dict[str, list[str]] = {
    # ---- limited access, in which every new org is
    "a new org is limited": [
        "test_every_new_org_is_limited_by_the_rules_rates_and_quota",
        "test_a_new_org_is_limited_and_has_accepted_no_guidelines",
    ],
    "limited: generate, embed and classify": [
        "test_a_limited_org_asks_all_three_endpoints",
        "test_a_new_org_has_a_lane_for_each_endpoint_under_limited_limits",
    ],
    "limited: models of different sizes, as the profile lists them": [
        "test_which_models_there_are_depends_on_the_mode",
        "test_a_model_that_may_be_asked_passes",
        "test_a_model_that_may_not_be_asked_is_refused_with_why_and_what_is_there",
    ],
    "limited: an org's fine-tuned models are its own and nobody else's": [
        "test_a_fine_tuned_model_may_be_asked_by_its_own_org_alone",
        "test_a_fine_tuned_model_is_one_orgs_own",
        "test_another_orgs_model_is_told_as_one_that_does_not_exist",
    ],
    "limited: 60 calls of generate a minute and 50,000 a day": [
        "test_so_many_calls_go_in_a_minute",
        "test_each_mode_has_its_limits_of_a_minute_and_of_a_day",
        "test_coheres_limits_and_quota_are_those_of_the_access_mode",
    ],
    "limited: 500 calls of embed and of classify a minute each, and 100,000 a day": [
        "test_so_many_calls_go_in_a_minute",
        "test_each_mode_has_its_limits_of_a_minute_and_of_a_day",
    ],
    "limited: 500,000 characters of generate, as long as the mode lasts": [
        "test_every_new_org_is_limited_by_the_rules_rates_and_quota",
        "test_used_characters_stay_on_record_at_approval_and_count_again_back_in_limited",
        "test_back_in_limited_mode_what_was_used_counts_again",
    ],
    "limited: for tests and experiments": ["test_limited_access_is_for_testing_and_says_so"],
    "limited: through a page, a client, the command line": [
        "test_the_ways_in_are_the_same_in_both_modes",
        "test_the_page_asks_for_nothing_from_elsewhere_and_holds_no_script",
        "test_the_script_of_the_page_shows_the_state_and_sends_the_forms",
        "test_each_endpoint_answers",
        "test_the_story_of_the_page_is_what_happens",
    ],
    # ---- full access
    "full: the same endpoints": [
        "test_full_access_has_the_same_endpoints_at_raised_rates_and_no_quota"
    ],
    "full: all models, of three sizes": [
        "test_full_access_has_the_three_sizes_of_models_and_all_of_the_catalogue",
        "test_which_models_there_are_depends_on_the_mode",
    ],
    "full: fine-tuned models as in limited access": [
        "test_a_fine_tuned_model_works_the_same_in_full_access"
    ],
    "full: the rate of generate is raised": [
        "test_full_access_has_the_same_endpoints_at_raised_rates_and_no_quota",
        "test_so_many_calls_go_in_a_minute",
        "test_each_mode_has_its_limits_of_a_minute_and_of_a_day",
    ],
    "full: the rates of embed and classify are raised": [
        "test_full_access_has_the_same_endpoints_at_raised_rates_and_no_quota",
        "test_so_many_calls_go_in_a_minute",
        "test_each_mode_has_its_limits_of_a_minute_and_of_a_day",
    ],
    "full: no quota": [
        "test_full_access_has_the_same_endpoints_at_raised_rates_and_no_quota",
        "test_at_approval_the_quota_falls_away_and_what_waited_for_it_goes",
    ],
    "full: for production": [
        "test_people_are_told_what_to_expect",
        "test_limited_access_is_for_testing_and_says_so",
    ],
    "full: through the same page, client and command line": [
        "test_the_ways_in_are_the_same_in_both_modes"
    ],
    "every number of these can be set otherwise": [
        "test_an_org_is_made_with_limits_quota_and_a_first_admin",
        "test_limits_quota_and_weights_change_in_one_step",
        "test_a_file_adds_models_and_changes_known_ones",
    ],
    # ---- counting
    "a call of generate counts the characters of its prompt and of its answer": [
        "test_characters_are_summed_over_all_users_of_the_org"
    ],
    "the quota is one sum over all users of an org": [
        "test_characters_are_summed_over_all_users_of_the_org",
        "test_limits_and_quota_are_one_sum_over_all_users_of_the_org",
        "test_flows_of_an_org_share_its_quota_and_park_each_its_own_jobs",
        "test_flows_of_two_orgs_share_nothing",
    ],
    "a quota that is reached stops generate, and neither embed nor classify": [
        "test_a_spent_quota_stops_generate_and_nothing_else",
        "test_a_quota_that_is_reached_suspends_generate_and_nothing_else",
    ],
    "approval brings generate back": [
        "test_approval_lifts_limits_and_quota_and_releases_what_waited",
        "test_at_approval_the_quota_falls_away_and_what_waited_for_it_goes",
    ],
    "a rate is of an org and an endpoint, one sum over all users": [
        "test_rates_are_one_sum_over_all_users_of_an_endpoint",
        "test_limits_and_quota_are_one_sum_over_all_users_of_the_org",
    ],
    "the window slides: it ends at the call that is decided on": [
        "test_the_window_slides_with_the_calls",
        "test_whenever_calls_arrive_no_window_ever_holds_more_than_its_amount",
        "test_a_call_goes_unless_it_could_be_one_too_many",
    ],
    "no minute or day of the calendar": [
        "test_a_minute_and_a_day_begin_with_the_call_and_not_with_the_calendar"
    ],
    "at its limit an endpoint is there again as soon as the window has room": [
        "test_the_endpoint_is_there_again_as_soon_as_the_window_has_room",
        "test_at_the_moment_that_was_told_a_call_goes_and_not_a_millisecond_earlier",
    ],
    # ---- the way to full access
    "a user of a limited org applies on the page, with use, risks and commitment": [
        "test_the_script_of_the_page_shows_the_state_and_sends_the_forms",
        "test_the_form_is_whole_or_it_is_no_application",
        "test_an_application_holds_its_form_and_who_filled_it_in_and_when",
    ],
    "whoever applies accepts the usage guidelines": [
        "test_whoever_applies_accepts_the_guidelines_and_one_may_accept_them_before",
        "test_the_guidelines_are_the_same_wherever_they_stand",
    ],
    "a reviewer approves after a check of safety, rejects, or asks for more": [
        "test_a_reviewer_asks_back_rejects_and_the_org_may_apply_again",
        "test_an_approval_needs_every_item_of_the_checklist_and_a_reason",
    ],
    "at approval new limits, no quota, and what waits is let go, all at once": [
        "test_approval_lifts_limits_and_quota_and_releases_what_waited",
        "test_an_org_that_is_approved_has_its_new_terms_at_once",
        "test_at_approval_what_waited_for_the_minute_goes",
    ],
    # ---- suspension
    "suspended: nothing is taken in": [
        "test_a_suspension_stops_releases_within_a_second_and_loses_nothing",
        "test_a_suspended_org_reads_everything_and_writes_nothing",
    ],
    "suspended: nothing more is let go": [
        "test_a_suspension_stops_releases_within_a_second_and_loses_nothing",
        "test_of_a_suspended_org_nothing_is_released_and_nothing_that_waits_is_lost",
        "test_the_suspension_of_one_org_holds_up_no_other",
    ],
    # A call that was sent counts at the provider: it ends and is charged, and stays to be read.
    "suspended: what was sent ends and is charged": [
        "test_calls_that_were_sent_before_a_suspension_end_and_are_charged"
    ],
    "suspended: only an operator lifts it, approval does not": [
        "test_an_approval_does_not_lift_a_suspension",
        "test_a_key_is_of_no_use_at_the_other_listener",
    ],
    "suspended: nothing that waits is lost": [
        "test_a_suspension_stops_releases_within_a_second_and_loses_nothing",
        "test_of_a_suspended_org_nothing_is_released_and_nothing_that_waits_is_lost",
    ],
}


def names_of_tests() -> set[str]:
    return {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


@pytest.fixture(scope="module")
def there() -> set[str]:
    return names_of_tests()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_of_access_has_its_tests(rule: str, there: set[str]) -> None:
    assert RULES[rule]
    assert [name for name in RULES[rule] if name not in there] == []

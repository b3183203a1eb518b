"""When an enforcer's certificate covers what it signed."""

import pytest

from bus.crypto.signing import Signer, Trust, sign_object
from bus.errors import Unverified
from bus.wire.hopblock import DAY_MS
from bus.wire.objects import EnforcerCertificate

DEPLOYMENT = bytes(16)
DAY = 20_000
ANCHOR = Signer(bytes(range(32)))
ENFORCER = Signer(bytes(range(32, 64)))
AFTERNOON = DAY * DAY_MS + 18 * 3_600_000


@pytest.fixture
def trust():
    certificate = EnforcerCertificate(
        DEPLOYMENT, ENFORCER.key_id, ENFORCER.public_key, AFTERNOON, AFTERNOON + DAY_MS, "e-1", ("",), ("notes",)
    )
    return Trust(DEPLOYMENT, ANCHOR.public_key, [sign_object(ANCHOR, certificate)])


@pytest.mark.parametrize("day", [DAY, DAY + 1])
def test_a_day_is_covered_by_a_certificate_that_is_valid_at_some_time_of_it(trust, day):
    begin = day * DAY_MS
    assert trust.enforcer_key(ENFORCER.key_id, None, None, begin, begin + DAY_MS - 1) == ENFORCER.public_key


@pytest.mark.parametrize("day", [DAY - 1, DAY + 2])
def test_a_day_before_or_after_the_certificate_is_refused(trust, day):
    begin = day * DAY_MS
    with pytest.raises(Unverified, match="not valid at this time"):
        trust.enforcer_key(ENFORCER.key_id, None, None, begin, begin + DAY_MS - 1)


@pytest.mark.parametrize("at", [AFTERNOON - 1, AFTERNOON + DAY_MS + 1])
def test_a_moment_outside_is_refused_and_the_limits_are_inside(trust, at):
    assert trust.enforcer_key(ENFORCER.key_id, "", "notes", AFTERNOON, AFTERNOON) == ENFORCER.public_key
    assert trust.enforcer_key(ENFORCER.key_id, "", "notes", AFTERNOON + DAY_MS, AFTERNOON + DAY_MS)
    with pytest.raises(Unverified, match="not valid at this time"):
        trust.enforcer_key(ENFORCER.key_id, "", "notes", at, at)


@pytest.mark.parametrize(("zone", "domain"), [("eu", "notes"), ("", "models")])
def test_another_zone_or_domain_is_refused(trust, zone, domain):
    with pytest.raises(Unverified, match="not for this domain"):
        trust.enforcer_key(ENFORCER.key_id, zone, domain)

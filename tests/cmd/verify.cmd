# Authentic; by the second secret of two, one of them old.
hookward verify -p mobility-work --secret-file tests/cmd/verify/old.secret --secret-file tests/cmd/verify/new.secret --headers tests/cmd/verify/signed-with-new.headers -b tests/cmd/verify/body.json --now 1700000060
# Another body than was signed.
hookward verify -p mobility-work --secret-file tests/cmd/verify/old.secret --secret-file tests/cmd/verify/new.secret --headers tests/cmd/verify/signed-with-new.headers -b tests/cmd/verify/forged.json --now 1700000060
# A secret that is not there any more.
hookward verify -p mobility-work --secret-file tests/cmd/verify/new.secret --headers tests/cmd/verify/signed-with-old.headers -b tests/cmd/verify/body.json --now 1700000060
# Stale, and from the future.
hookward verify -p mobility-work --secret-file tests/cmd/verify/old.secret --secret-file tests/cmd/verify/new.secret --headers tests/cmd/verify/signed-with-new.headers -b tests/cmd/verify/body.json --now 1700003661
hookward verify -p mobility-work --secret-file tests/cmd/verify/old.secret --secret-file tests/cmd/verify/new.secret --headers tests/cmd/verify/signed-with-new.headers -b tests/cmd/verify/body.json --now 1699999600 --json
# Malformed, missing, and a credential that is another one.
hookward verify -p mobility-work --secret-file tests/cmd/verify/old.secret --secret-file tests/cmd/verify/new.secret --headers tests/cmd/verify/malformed.headers -b tests/cmd/verify/body.json --now 1700000060
hookward verify -p mobility-work --secret-file tests/cmd/verify/old.secret --secret-file tests/cmd/verify/new.secret --headers tests/cmd/verify/gains.headers -b tests/cmd/verify/body.json --now 1700000060
hookward verify -p gains --secret-file tests/cmd/verify/new.secret --headers tests/cmd/verify/gains.headers -b tests/cmd/verify/body.json
hookward verify -p mobility-work --secret-file tests/cmd/verify/new.secret --headers tests/cmd/verify/body.json -b tests/cmd/verify/body.json

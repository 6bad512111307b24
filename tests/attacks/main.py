"""Runs the attacks one after the other, each on a gateway of its own, and says what held."""

import argparse
import functools
import http.client
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import http1
import http2
from gateway import OPEN_PATH, PATH, Gateway, Genuine, percentile

#: By when a genuine webhook must have its 200, in seconds.
DEADLINE = 1.0
#: A flood of frames as wide as a line of 100 Mbit/s, in bytes a second, leaves others this many times their quiet latency.
LINE = 100e6 / 8
SLOWER = 2.0
#: A flood and silence take turns, so many times and so many seconds each: whatever else the machine does befalls both.
TURNS, TURN_S = 6, 1.0
#: Between two genuine webhooks of a turn, in seconds: enough of them for a 99th percentile.
PACE = 0.0025
#: In seconds: a 99th percentile below this is not told apart from a machine that does something else now and then.
NOISE = 0.003
#: Of an attack at full speed: more than there are cores.
PROCESSES = 3


def workers(count, attack, target, seconds):
    """The attack from so many processes at a time; what came of each."""
    stop = time.monotonic() + seconds
    with multiprocessing.Pool(count, initializer=_lowest) as pool:
        return [job.get(seconds + 60) for job in [pool.apply_async(attack, (target, stop)) for _ in range(count)]]


def _lowest():
    # The attacker has a machine of its own: here it takes only what the gateway leaves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)


def summed(results):
    out = {}
    for result in results:
        for key, value in result.items():
            out[key] = max(out.get(key, 0), value) if key.endswith(("_s", "_most_kib")) else out.get(key, 0) + value
    return out


def held(attack, kind="http1", told_to_come_again=0.0):
    """Connections that do nothing useful: the gateway ends them all by its deadlines, and genuine webhooks go on. Up to
    this part of them may get 503 with `Retry-After`: where the room for bodies is full of uploads that were at full speed
    a moment ago. (All of them come from this machine, which has no share of its own as other addresses have.)"""

    def run(gateway, seconds):
        target = getattr(gateway, kind)
        genuine = Genuine(gateway.http1, 0.05)
        # The longest deadline is idle_timeout = 8s; what is written last may begin late.
        result = summed(workers(1, attack, target, 45))
        wrong = []
        if result["ended"] != result["opened"] or not result["opened"]:
            wrong.append(f"{result['opened'] - result['ended']} of {result['opened']} connections were not ended")
        answers = genuine.end()
        refused = [answer for answer in answers if answer[0] == 503]
        if told_to_come_again and len(refused) <= told_to_come_again * len(answers):
            result["told_to_come_again"] = len(refused)
            answers = [answer for answer in answers if answer[0] != 503]
        return result, answers, None, wrong

    return run


def busy(attack, kind="http1"):
    """As fast as it goes."""

    def run(gateway, seconds):
        genuine = Genuine(gateway.http1, 0.05)
        result = summed(workers(PROCESSES, attack, getattr(gateway, kind), seconds))
        return result, genuine.end(), None, []

    return run


#: For an upstream that answers nobody: a long queue on disk, and as much in memory as is allowed to be on its way.
hung_upstream = busy(http1.genuine_flood)


def flooded(name):
    """Frames as fast as they go: memory, and how connections end. And, by turns with silence, at the width of a line: what
    others notice of it."""

    def run(gateway, seconds):
        attack = functools.partial(http2.flood, name=name)
        genuine = Genuine(gateway.http1, 0.05)
        result = summed(workers(PROCESSES, attack, gateway.http2, seconds))
        answers = genuine.end()
        wrong = []
        # Those of the last moment end with the attack itself.
        if result["ended"] < result["connections"] - PROCESSES or not result["ended"]:
            wrong.append(f"{result['connections'] - result['ended']} of {result['connections']} connections were not ended")

        measured = functools.partial(attack, rate=LINE / PROCESSES)
        quiet, beside, sent_kib = [], [], 0
        for _ in range(TURNS):
            genuine = Genuine(gateway.http1, PACE)
            time.sleep(TURN_S)
            quiet += genuine.end()
            genuine = Genuine(gateway.http1, PACE)
            sent_kib += summed(workers(PROCESSES, measured, gateway.http2, TURN_S))["sent_kib"]
            beside += genuine.end()
        result["measured_at_mbit"] = sent_kib * 1024 * 8 / 1e6 / (TURNS * TURN_S)
        return result, answers + quiet + beside, (quiet, beside), wrong

    return run


def slowhttptest(mode, path, *options):
    """The tool's own attack, for half a minute. Whether a connection has ended is the gateway's word: a slow reader does
    not see it before it has read everything."""

    def run(gateway, seconds):
        host, port = gateway.http1
        genuine = Genuine(gateway.http1, 0.05)
        command = ["slowhttptest", "-c", "1000", "-r", "400", f"-{mode}", "-l", "30", "-p", "5", *options]
        began, most, busy_until = time.monotonic(), 0, 0.0
        with tempfile.TemporaryFile("w+") as out:
            tool = subprocess.Popen([*command, "-u", f"http://{host}:{port}{path}"], stdout=out, stderr=out)
            while tool.poll() is None:
                open_now = int(gateway.metric("hookward_connections"))
                most = max(most, open_now)
                # Those of the genuine webhooks are among them.
                if open_now > 3:
                    busy_until = time.monotonic() - began
                time.sleep(0.25)
            out.seek(0)
            text = re.sub(r"\x1b\[[0-9;]*m", "", out.read())
        answers = genuine.end()
        wrong = []
        # Of slow bodies fewer are let in: what is not verified yet has half of `in_flight_max`.
        if most < 500:
            wrong.append("the tool did not get its connections: " + text.strip()[-300:])
        if busy_until > 25:
            wrong.append("connections were left open")
        return {"connected_most": most, "all_ended_s": busy_until}, answers, None, wrong

    return run


def hold(target, stop, count, first, source=None):
    return http1.hold(target, count, first, stop, source)


def held_frames(first, told_to_come_again=0.0):
    return held(functools.partial(hold, count=300, first=first), "http2", told_to_come_again)


def crowd(gateway, seconds):
    """More connections than there may be. They hold the places that are kept for health probes as well, and whoever asks
    for the health of the gateway gets an answer while the crowd is still there."""
    probes, stop, first = [], threading.Event(), time.monotonic()

    def probe():
        while not stop.wait(0.1):
            began = time.monotonic()
            try:
                connection = http.client.HTTPConnection(*gateway.http1, timeout=5)
                connection.request("GET", "/healthz")
                status = connection.getresponse().status
                connection.close()
            except OSError as error:
                status = repr(error)
            probes.append((began - first, status, time.monotonic() - began))

    prober = threading.Thread(target=probe)
    prober.start()
    result = summed(workers(2, functools.partial(hold, count=1500, first=b"POST"), gateway.http1, 45))
    stop.set()
    prober.join()
    later = [(status, took) for at, status, took in probes if at > result["arrived_s"]]
    result["probes"], result["answered"] = len(probes), sum(status == 200 for _, status, _ in probes)
    wrong = [f"{result['opened'] - result['ended']} connections were not ended"] if result["ended"] != result["opened"] else []
    return result, later, None, wrong


def one_address(gateway, seconds):
    """One client, behind a proxy that says so, wants every connection."""
    first = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\nPOST "
    genuine = Genuine(gateway.http1, 0.05)
    attack = functools.partial(hold, count=2000, first=first, source="127.0.0.2")
    result = summed(workers(1, attack, gateway.proxied, 45))
    return result, genuine.end(), None, []


ATTACKS = {
    "slowhttptest H: slow heads": slowhttptest("H", PATH, "-i", "2", "-x", "20"),
    "slowhttptest B: slow bodies": slowhttptest("B", OPEN_PATH, "-i", "1", "-x", "20", "-s", "1000000"),
    "slowhttptest X: slow reading": slowhttptest("X", PATH, "-w", "64", "-y", "128", "-n", "1", "-z", "48", "-k", "1"),
    "1000 silent connections": held(http1.silent),
    "1000 half heads": held(http1.half_heads),
    "1000 stalled uploads of 1 MiB": held(http1.stalled_uploads, told_to_come_again=0.1),
    "forgeries at a source's own path": busy(http1.forgeries),
    "connections that come and go": busy(http1.churn),
    "requests whose answers are unread": busy(http1.pipelined),
    "health probes among 3000 connections": crowd,
    "one address behind a proxy": one_address,
    "PROXY protocol: 500 silent": held(functools.partial(hold, count=500, first=b"", source="127.0.0.2"), "proxied"),
    "PROXY protocol: 500 half headers": held(
        functools.partial(hold, count=500, first=b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0", source="127.0.0.2"), "proxied"
    ),
    "TLS: 1000 silent connections": held(http1.silent, "tls"),
    "TLS: 1000 half handshakes": held(functools.partial(hold, count=1000, first=http1.tls_hello()[:100]), "tls"),
    "TLS: 1000 handshakes that stop": held(functools.partial(hold, count=1000, first=http1.tls_hello()), "tls"),
    "TLS: handshakes at full speed": busy(http1.client_hellos, "tls"),
    "signed webhooks at full speed": busy(http1.genuine_flood),
    "signed webhooks for an upstream that hangs": hung_upstream,
    "HTTP/2: 300 silent connections": held_frames(b""),
    "HTTP/2: 300 prefaces alone": held_frames(http2.HELLO),
    "HTTP/2: 300 half frames": held_frames(http2.half_frame()),
    "HTTP/2: 300 stalled windows": held_frames(http2.stalled_window()),
    "HTTP/2: 300 x 30 stalled uploads": held_frames(http2.stalled_bodies(), told_to_come_again=0.1),
}
for flood in http2.FLOODS:
    ATTACKS[f"HTTP/2: {flood}"] = flooded(flood)


def judge(name, gateway, result, answers, turns, wrong):
    """A line for people, and whether all held."""
    refused = [status for status, _ in answers if status != 200]
    latencies = [seconds for _, seconds in answers]
    p99, worst = percentile(latencies, 0.99), max(latencies, default=0.0)
    if not answers:
        wrong.append("no genuine webhook was sent")
    if refused:
        wrong.append(f"{len(refused)} of {len(answers)} genuine webhooks were not accepted: {refused[0]}")
    if worst > DEADLINE:
        wrong.append(f"a genuine webhook took {worst:.2f} s")
    if gateway.peak > gateway.bound:
        wrong.append(f"{gateway.peak >> 20} MiB resident, {gateway.bound >> 20} are allowed")
    if not gateway.is_alive():
        wrong.append("the gateway ended: " + " ".join(gateway.log[-3:]).rstrip())
    else:
        wrong += [f"a secret is in {where}" for where in gateway.leaks()]
    latency = f"p99 {p99 * 1000:.0f} ms"
    if turns is not None:
        was, became = (percentile([seconds for _, seconds in side], 0.99) for side in turns)
        latency = f"p99 {became * 1000:.1f} ms, quiet {was * 1000:.1f} ms, {became / was:.2f} times"
        if became > max(SLOWER * was, NOISE):
            wrong.append(f"p99 {became / was:.2f} times the quiet one")
    facts = ", ".join(f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in result.items())
    print(
        f"{name}: {gateway.peak >> 20} MiB of {gateway.bound >> 20}; genuine {len(answers)}, {latency}, "
        f"worst {worst * 1000:.0f} ms; {facts}"
    )
    for problem in wrong:
        print(f"    NOT HELD: {problem}")
    sys.stdout.flush()
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default="target/release/hookward")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each flood")
    parser.add_argument("attacks", nargs="*", help="a part of the name; all unless given")
    options = parser.parse_args()
    program = os.path.realpath(options.program)
    chosen = {
        name: run
        for name, run in ATTACKS.items()
        if not options.attacks or any(part in name for part in options.attacks)
    }
    failed = 0
    for name, run in chosen.items():
        gateway = Gateway(program, upstream_delay="60s" if run is hung_upstream else "0s")
        try:
            held_up = judge(name, gateway, *run(gateway, options.seconds))
        finally:
            gateway.close()
        failed += not held_up
    print(f"{len(chosen) - failed} of {len(chosen)} attacks withstood")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())

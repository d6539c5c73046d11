# SPDX-License-Identifier: Apache-2.0
"""The server's HTTP from outside, over an engine that says the prompt again.

Usage: run_http_tests.py PATH/lmd_test_server [NAME...]      NAME: only cases whose names contain one of them

The last line is `N passed, N failed`; the exit status is 0 only when nothing failed.
"""
import json
import shutil
import socket
import subprocess
import time

from server_case import SLOW, Server, Skip, case, check, events, main, read_all, read_reply, wait_until


@case
def answers_are_whole_or_streamed():
    with Server() as server:
        whole = server.plain("héllo 世界")
        check(whole.status == 200 and whole.text == "héllo 世界", whole)
        stream = server.plain("abc", "?stream=1&max_tokens=5&ignore_eos=1")
        check(stream.headers["Content-Type"] == "text/event-stream", stream)
        check(events(stream.body) == ['"a"', '"b"', '"c"', '"a"', "[DONE]"], stream.body)
        check(server.plain("xy", "?n=3").text == "xyxyxy", "three answers")
        check(server.request("HEAD", "/version").body == b"", "HEAD has no body")
        check(server.request("HEAD", "/version").headers["Content-Length"] == "19", "HEAD says how long it would be")


ERRORS = [  # request, status and body of 0.5, of 0.18
    (("GET", "/nowhere"), 404, {"detail": "Not Found"}, 404, "not_found_error"),
    (("GET", "/plain"), 405, {"detail": "Method Not Allowed"}, 405, "invalid_request_error"),
    (("POST", "/health"), 405, {"detail": "Method Not Allowed"}, 405, "invalid_request_error"),
    (("POST", "/plain", ""), 422, {"detail": [{"type": "missing", "loc": ["body"], "msg": "Field required"}]},
     400, "invalid_request_error"),
    (("POST", "/plain", "x" * 3000), 413, {"object": "error", "message": "The body is too large.", "code": 413},
     413, "invalid_request_error"),
    (("POST", "/plain?break=1", "x"), 500, {"object": "error", "message": "Internal error.", "code": 500},
     500, "server_error"),
    (("GET", "/" + "x" * 20000), 431, {"object": "error", "message": "The header is too large.", "code": 431},
     431, "invalid_request_error"),
]


@case
def errors_have_the_shapes_that_clients_know():
    for compat in ("0.5", "0.18"):
        with Server("--api-compat", compat, "--max-body", 2000) as server:
            for request, old_status, old_body, status, kind in ERRORS:
                reply = server.request(*request)
                check(reply.status == (old_status if compat == "0.5" else status), (request[:2], reply))
                check("\n" not in reply.text and reply.headers["X-Request-Id"], reply)
                if compat == "0.5":
                    check(reply.json == old_body, (request[:2], reply))
                else:
                    body = reply.json
                    check(body["type"] == kind and body["code"] == status and body["object"] == "error", reply)
                    check(body["param"] is None and body["message"], reply)
            check(server.request("GET", "/plain").headers["Allow"] == "POST, OPTIONS", "405 says what is allowed")
            check(server.get("/health").status == 200, "the server goes on")


@case
def a_connection_that_fails_ends_alone():
    with Server("--max-calls", 2, "--rate", 100, "--log-json") as server:
        other = server.begin("abc", "?stream=1&ignore_eos=1&max_tokens=60", "Connection: close\r\n")
        for _ in range(2):
            raw = server.begin("x", "?break=2&ignore_eos=1&max_tokens=1000", "X-Request-Id: fails-1\r\n")
            check(b"[DONE]" not in read_all(raw), "it broke off")
        wait_until(lambda: server.logged().count("a request failed") == 2, 5)
        logged = [json.loads(line) for line in server.logged().splitlines()]
        failed = [line for line in logged if line["message"] == "a request failed"]
        check(len(failed) == 2 and all(line["request_id"] == "fails-1" for line in failed), failed)
        check(failed[0]["reason"] == "where nobody expects it" and failed[0]["level"] == "error", failed)
        check(b"data: [DONE]" in read_all(other), "the other stream goes on")
        wait_until(lambda: server.metric("lmd_sequences_running") == 0, 2)
        check([server.plain("abc").text for _ in range(3)] == ["abc"] * 3, "nothing is taken up for ever")


@case
def what_is_not_http_is_refused():
    with Server() as server:
        for junk in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n",
                     b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
                     b"POST /plain HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                     b"POST /plain HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
                     b"POST /plain HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
                     b"POST /plain HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nabc",
                     b"POST /plain HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;" + b"x" * 40000):
            raw = server.connect()
            raw.sendall(junk)
            answer = read_all(raw)
            check(answer.startswith(b"HTTP/1.1 400 ") and b"Connection: close" in answer, (junk[:60], answer[:200]))
        check(server.get("/health").status == 200, "the server goes on")


@case
def requests_come_in_any_pieces():
    with Server() as server:
        text = b"POST /plain HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n"
        raw = server.connect()
        for byte in text:
            raw.sendall(bytes([byte]))
            time.sleep(0.0005)
        check(read_reply(raw.makefile("rb")).body == b"abcde", "a chunked body byte by byte")
        raw = server.connect()
        raw.sendall(b"POST /plain HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        stream = raw.makefile("rb")
        check(stream.readline() == b"HTTP/1.1 100 Continue\r\n" and stream.readline() == b"\r\n", "asked to go on")
        raw.sendall(b"ab")
        check(read_reply(stream).body == b"ab", "the body after 100")


@case
def pipelined_requests_are_answered_in_order():
    with Server() as server:
        one = "POST /plain{} HTTP/1.1\r\nHost: h\r\nX-Request-Id: id-{}\r\nContent-Length: 2\r\n\r\n{}"
        raw = server.connect()
        raw.sendall("".join([one.format("?stream=1", 1, "ab"), "GET /version HTTP/1.1\r\nX-Request-Id: id-2\r\n\r\n",
                             one.format("", 3, "cd"), "GET /no HTTP/1.1\r\nX-Request-Id: id-4\r\n\r\n",
                             one.format("?stream=1", 5, "ef")]).encode())
        stream = raw.makefile("rb")
        replies = [read_reply(stream) for _ in range(5)]
        check([r.headers["X-Request-Id"] for r in replies] == [f"id-{i}" for i in range(1, 6)], replies)
        check([r.status for r in replies] == [200, 200, 200, 404, 200], replies)
        check(events(replies[0].body)[:2] == ['"a"', '"b"'] and replies[2].body == b"cd", replies)


@case
def connections_of_http_1_0_and_close():
    with Server() as server:
        for request, is_kept in ((b"GET /version HTTP/1.0\r\n\r\n", False),
                                 (b"GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
                                 (b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n", False),
                                 (b"GET /version HTTP/1.1\r\n\r\n", True)):
            raw = server.connect()
            raw.sendall(request)
            stream = raw.makefile("rb")
            check(read_reply(stream).status == 200, request)
            raw.sendall(b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n")
            check((stream.readline() != b"") == is_kept, request)
        raw = server.connect()
        raw.sendall(b"POST /plain?stream=1 HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")
        head, body = read_all(raw).split(b"\r\n\r\n", 1)
        check(b"Transfer-Encoding" not in head and events(body) == ['"a"', '"b"', "[DONE]"], "a stream of HTTP/1.0")


@case
def every_route_asks_for_a_key():
    with Server("--api-keys", "s3cret", "other") as server:
        routes = server.get("/test/routes", headers={"Authorization": "Bearer s3cret"}).json
        check(len(routes) >= 7, routes)
        n_open = 0
        for route in [*routes, {"method": "GET", "path": "/nowhere", "needs_key": True}]:
            method, path, needs_key = route["method"], route["path"], route["needs_key"]
            n_open += not needs_key
            check(needs_key or path.startswith("/health"), f"{path} needs no key")
            for headers, query, is_right in (
                    ({}, "", False), ({"Authorization": "Bearer wrong"}, "", False), ({"Authorization": "s3cret"}, "", False),
                    ({"Authorization": "Bearer "}, "", False), ({"Authorization": "Bearer s3cret2"}, "", False),
                    ({}, "?api_key=s3cret", False), ({"Authorization": "Bearer s3cret"}, "", True),
                    ({"Authorization": "bearer other"}, "", True)):
                reply = server.request(method, path + query, body="x" if method == "POST" else None, headers=headers)
                check((reply.status == 401) == (needs_key and not is_right), (method, path, headers, reply))
                if reply.status == 401:
                    check(reply.headers["WWW-Authenticate"] == "Bearer" and reply.json["message"] == "Unauthorized.", reply)
            check(server.request("OPTIONS", path).status in (204, 404), "OPTIONS asks for no key")
        check(n_open == 3, f"{n_open} routes are open")
    with Server("--api-keys", "s3cret", "--api-compat", "0.5") as server:
        check(server.get("/version").json["detail"]["error"]["code"] == "invalid_api_key", "0.5's body")


@case
def pages_of_other_origins_are_kept_out():
    with Server("--allow-origins", "https://good.example", "--allowed-hosts", "box.lan") as server:
        port = server.port

        def status(origin, host, path="/version"):
            return server.get(path, headers={"Origin": origin, "Host": host}).status

        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"[::1]:{port}", f"box.lan:{port}"):
            check(status(f"http://{host}", host) == 200, f"same origin {host}")
            check(status("http://evil.example", host) == 403, f"foreign origin at {host}")
        check(status("http://rebound.example:1", "rebound.example:1") == 403, "equal, but a name that can be rebound")
        check(status("null", f"localhost:{port}") == 403, "an origin that says nothing")
        check(status("https://good.example", "localhost") == 200, "an origin that was allowed")
        check(status("http://evil.example", "localhost", "/health") == 200, "health tells nothing")
        check(server.get("/version", headers={"Host": "rebound.example"}).status == 200, "no Origin, no question")
        for sign in ({"Accept-Language": "en"}, {"Sec-Fetch-Site": "same-origin"}):  # a browser, as of a page that reads
            reply = server.get("/version", headers={"Host": "rebound.example", **sign})
            check(reply.status == 403 and "--allowed-hosts" in reply.json["message"], "a name that was rebound")
            check(server.get("/version", headers={"Host": "box.lan", **sign}).status == 200, "a name of the operator's")
            check(server.get("/version", headers=sign).status == 200, "an address")
            check(server.get("/health", headers={"Host": "rebound.example", **sign}).status == 200, "health tells nothing")
    with Server("--api-keys", "k") as server:
        reply = server.get("/version", headers={"Origin": "http://evil.example", "Authorization": "Bearer k"})
        check(reply.status == 200 and "Access-Control-Allow-Origin" not in reply.headers, "the key decides")


@case
def cross_origin_answers_name_what_is_allowed():
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization, content-type"}
    with Server("--allow-origins", "https://a.example", "--allow-credentials", "--api-keys", "k") as server:
        reply = server.request("OPTIONS", "/plain", headers=asked)
        check(reply.status == 204 and reply.body == b"", reply)
        check(reply.headers["Access-Control-Allow-Origin"] == "https://a.example", reply)
        check(reply.headers["Access-Control-Allow-Credentials"] == "true", reply)
        check(reply.headers["Access-Control-Allow-Methods"] == "POST, OPTIONS", reply)
        check(reply.headers["Access-Control-Allow-Headers"] == "authorization, content-type", reply)
        reply = server.request("OPTIONS", "/plain", headers={**asked, "Origin": "https://b.example"})
        check(not any(name.startswith("Access-Control") for name in reply.headers), reply)
        reply = server.get("/version", headers={"Origin": "https://a.example"})
        check(reply.status == 401 and reply.headers["Access-Control-Allow-Origin"] == "https://a.example", "errors, too")
    with Server("--allow-origins", "*") as server:
        check(server.get("/version", headers=asked).headers["Access-Control-Allow-Origin"] == "*", "open to all")


@case
def request_ids_are_taken_or_made():
    with Server() as server:
        check(server.get("/version", headers={"X-Request-Id": "my-Id_1.2"}).headers["X-Request-Id"] == "my-Id_1.2", "taken")
        seen = set()
        for bad in ("", "a b", "x" * 65, "a;b", "é".encode().decode("latin-1")):
            made = server.get("/version", headers={"X-Request-Id": bad}).headers["X-Request-Id"]
            check(made.startswith("req-") and made != bad, made)
            seen.add(made)
        check(len(seen) == 5, "ids differ")
        stream = server.plain("a", "?stream=1", headers={"X-Request-Id": "s1"})
        check(stream.headers["X-Request-Id"] == "s1", "streams have one")


@case
def slow_clients_are_cut():
    with Server("--header-ms", 400, "--body-ms", 400, "--idle-ms", 400, "--write-ms", 400, "--session-len", 1 << 22,
                "--quiet") as server:
        half_header = server.connect()
        half_header.sendall(b"GET / HTT")
        half_body = server.connect()
        half_body.sendall(b"POST /plain HTTP/1.1\r\nContent-Length: 10\r\n\r\nab")
        silent = server.connect()
        idle = server.connect()
        idle.sendall(b"GET /version HTTP/1.1\r\n\r\n")
        # A receiver that never reads: its buffers and the server's fill up.
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", server.port))
        reader.sendall(b"POST /plain?stream=1&ignore_eos=1&max_tokens=4000000 HTTP/1.1\r\nContent-Length: 5\r\n\r\n" + b"x" * 5)
        drip = server.connect()
        began = time.monotonic()
        with_drip = b"GET /version HTTP/1.1\r\nX: "
        while time.monotonic() - began < 3 * SLOW:
            try:
                drip.sendall(with_drip or b"y")
                with_drip = b""
            except OSError:
                break
            time.sleep(0.02)
        check(time.monotonic() - began < 2 * SLOW, "a header that drips has one deadline")
        check(read_all(half_header).startswith(b"HTTP/1.1 408 "), "a header that does not come")
        check(read_all(half_body).startswith(b"HTTP/1.1 408 "), "a body that does not come")
        check(read_all(silent) == b"", "a connection that says nothing")
        check(b" 200 OK" in read_all(idle), "an idle connection")
        wait_until(lambda: server.metric("lmd_requests_running") == 0, 5)
        check(server.metric("lmd_http_clients_gone_total") >= 1, "the reader that never read was cut")
        wait_until(lambda: server.metric("lmd_http_connections") == 1, 5)


@case
def the_server_stays_quick_among_slow_clients():
    with Server("--quiet") as server:
        slow = []
        for i in range(300):
            raw = server.connect()
            raw.sendall((b"GET /version HTTP/1.1\r\nX: y", b"POST /plain HTTP/1.1\r\nContent-Length: 9\r\n\r\nab",
                         b"POST /plain?stream=1&ignore_eos=1&max_tokens=3000 HTTP/1.1\r\nContent-Length: 2\r\n\r\nab")[i % 3])
            slow.append(raw)
        times = []
        for _ in range(200):
            began = time.monotonic()
            check(server.get("/health").status == 200, "healthy")
            times.append(time.monotonic() - began)
        median = sorted(times)[len(times) // 2]
        check(median < 0.05 * SLOW, f"/health takes {median * 1000:.1f} ms in the median")


@case
def what_clients_leave_behind_is_freed_at_once():
    for n, batch, query in ((60, 8, "?stream=1&ignore_eos=1&max_tokens=4000"), (60, 8, "?ignore_eos=1&max_tokens=4000"),
                            (20, 64, "?stream=1&n=2&ignore_eos=1&max_tokens=4000")):
        with Server("--rate", 50, "--batch", batch, "--quiet") as server:
            clients = [server.begin("hello" * 20, query) for _ in range(n)]
            n_answers = n * (2 if "n=2" in query else 1)
            wait_until(lambda: server.metric("lmd_requests_running") + server.metric("lmd_requests_waiting") == n_answers, 10)
            wait_until(lambda: server.metric("lmd_requests_running") == min(n_answers, batch), 10)
            for i, client in enumerate(clients):
                if i % 2:  # half of them with a reset instead of an end
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
            took = wait_until(
                lambda: server.metric("lmd_requests_running") + server.metric("lmd_requests_waiting") == 0, 5, 0.005)
            check(took < 0.5 * SLOW, f"{query}: freed after {took * 1000:.0f} ms")
            before = server.metric("lmd_generation_tokens_total")
            time.sleep(0.1)
            check(server.metric("lmd_generation_tokens_total") == before, "nothing is generated for nobody")
            check(server.plain("still").text == "still", "the slots are free")


@case
def who_comes_when_the_server_is_full_is_told_at_once():
    with Server("--max-calls", 4, "--batch", 2, "--rate", 20, "--quiet") as server:
        clients = [server.begin("hello", "?stream=1&ignore_eos=1&max_tokens=4000") for _ in range(4)]
        wait_until(lambda: server.metric("lmd_requests_running") == 2, 10)
        worst = 0.0
        for _ in range(40):
            began = time.monotonic()
            reply = server.plain("more")
            worst = max(worst, time.monotonic() - began)
            check(reply.status == 429 and int(reply.headers["Retry-After"]) >= 1, reply)
            check(reply.json["type"] == "rate_limit_error", reply)
        check(worst < 0.5 * SLOW, f"the slowest refusal took {worst * 1000:.0f} ms")
        check(server.get("/health").status == 200, "a full server is healthy")
        raw = server.connect()  # refusals keep the connection
        stream = raw.makefile("rb")
        for _ in range(3):
            raw.sendall(b"POST /plain HTTP/1.1\r\nContent-Length: 2\r\n\r\nab")
            check(read_reply(stream).status == 429, "refused on the same connection")
        for client in clients:
            client.close()
        wait_until(lambda: server.plain("ab").status == 200, 5)


@case
def bodies_are_bounded_together():
    with Server("--max-all-bodies", 300000, "--quiet") as server:
        held = []
        for _ in range(3):
            raw = server.connect()
            raw.sendall(b"POST /plain HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + b"x" * 90000)
            held.append(raw)
        time.sleep(0.3)
        raw = server.connect()
        raw.sendall(b"POST /plain HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + b"x" * 90000)
        check(read_all(raw).startswith(b"HTTP/1.1 429 "), "one body too many")
        for raw in held:
            raw.close()
        wait_until(lambda: server.plain("y" * 200000).status != 429, 5)


@case
def connections_are_bounded():
    with Server("--max-connections", 5) as server:
        held = [server.connect() for _ in range(5)]
        wait_until(lambda: server.get("/health").status == 503, 5)
        reply = server.get("/health")
        check(reply.status == 503 and "Retry-After" in reply.headers, reply)
        held.pop().close()
        wait_until(lambda: server.get("/health").status == 200, 5)


@case
def silent_streams_are_kept_alive_when_asked():
    with Server("--sse-ping-s", 1, "--rate", 0.5) as server:
        body = server.plain("abc", "?stream=1&max_tokens=2").body
        check(b": ping\n\n" in body and body.endswith(b"data: [DONE]\n\n"), body)
    with Server("--rate", 1) as server:
        check(b":" not in server.plain("abc", "?stream=1&max_tokens=2").body.replace(b"data:", b""), "none unless asked")


@case
def metrics_are_what_prometheus_reads():
    with Server("--metrics-compat", "vllm") as server:
        for _ in range(3):
            server.plain("hello", "?n=2")
        server.plain("hello", "?max_tokens=2")
        server.get("/no")
        check(server.metric("lmd_requests_finished_total") == 7, "answers that ended")
        page = server.get("/metrics").text
        for label in ('route="/plain",status="200"} 4', 'route="other",status="404"} 1'):
            check(f"lmd_http_responses_total{{{label}\n" in page, page)
        check(server.metric("lmd_time_to_first_token_seconds_count") == 7, "first tokens")
        check(server.metric("vllm:time_to_first_token_seconds_count") == 7, "under vLLM's name")
        check(server.metric("lmd_generation_tokens_total") == 6 * 6 + 2, "tokens, the end's too")
        check(server.metric("lmd_prompt_tokens_total") == 7 * 5, "tokens of prompts")
    if shutil.which("promtool") is None:
        raise Skip("promtool is not installed")
    with Server() as server:
        server.plain("hello")
        done = subprocess.run(["promtool", "check", "metrics"], input=server.get("/metrics").body, capture_output=True)
        check(done.returncode == 0 and not done.stderr, done)


LMDEPLOY_NAMES = """num_requests_succeeded num_requests_failed num_requests_running num_requests_waiting
    num_api_requests_routed num_api_requests_waiting gpu_cache_usage_perc prefix_cache_hit_rate prompt_tokens_total
    generation_tokens_total cached_tokens_total request_success_total request_prompt_tokens request_generation_tokens
    request_cached_tokens request_cache_hit_ratio iteration_tokens_total time_to_first_token_seconds
    time_per_output_token_seconds iter_token_latency e2e_request_latency_seconds request_queue_time_seconds
    request_inference_time_seconds request_prefill_time_seconds request_decode_time_seconds""".split()


@case
def metrics_stand_under_lmdeploys_names():
    prompt = "a prompt that fills a page " * 10  # 270 tokens
    with Server("--metrics-compat", "lmdeploy", "--fail-on", "FAIL") as server:
        for _ in range(2):
            server.plain(prompt, "?max_tokens=4&ignore_eos=1")
        server.plain("FAIL")
        body = json.dumps({"model": "echo", "prompt": "one two", "stop": "two"})
        check(server.request("POST", "/v1/completions", body, {"Content-Type": "application/json"}).status == 200, "stop")
        wait_until(lambda: server.metric("lmdeploy:num_requests_running") == 0, 5)
        page = server.get("/metrics").text
        families = {line.split()[2]: line.split()[3] for line in page.splitlines() if line.startswith("# TYPE lmdeploy:")}
        check(sorted(families) == sorted("lmdeploy:" + name for name in LMDEPLOY_NAMES), families)
        histograms = {name for name, kind in families.items() if kind == "histogram"}
        check(len(histograms) == 13, histograms)
        value = lambda name: server.metric("lmdeploy:" + name)
        check(value("num_requests_succeeded") == 3, "two at their length, one at a stop string")
        check(value("num_requests_failed") == 1, "a step that failed")
        check(value("request_success_total") == 4, "by reason")
        check(0.3 < value("prefix_cache_hit_rate") < 0.5, "256 of about 550 tokens")
        check(value("request_cached_tokens_sum") == 256, "four pages")
        check(value("request_prompt_tokens_count") == value("e2e_request_latency_seconds_count") == 3, "sizes")
        check(value("iteration_tokens_total_count") >= 6 and value("iteration_tokens_total_sum") > 270, "steps")
        check(value("num_api_requests_routed") == value("num_api_requests_waiting") == 0, "nothing is left")


@case
def logs_hold_no_prompt_and_no_line_of_a_client():
    for flags, shows in (((), False), (("--log-json",), False), (("--log-json", "--log-body", "1000"), True)):
        with Server(*flags) as server:
            server.plain("tell me a SECRET", headers={"X-Request-Id": "id-7"})
            server.get("/%0d%0aforged")
            raw = server.connect()
            raw.sendall("GET /a\x7f\u2028b HTTP/1.1\r\n\r\n".encode())
            read_reply(raw.makefile("rb"))
            wait_until(lambda: server.logged().count("access") >= 3, 5)
            lines = server.logged().splitlines()
            check(("SECRET" in server.logged()) == shows, lines)
            check(any("id-7" in line and "/plain" in line for line in lines), lines)
            if flags:
                check({"time", "level", "message"} <= set(json.loads(lines[0])), lines)
                check(all(json.loads(line)["message"] for line in lines), lines)


main()

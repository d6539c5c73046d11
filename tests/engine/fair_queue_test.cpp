/// \file  Clients take turns, by the tokens that each was given.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/engine/fair_queue.hpp>

#include <map>
#include <memory>
#include <vector>

#include <doctest/doctest.h>

using namespace lmd;

namespace {

engine::SequencePtr sequence(engine::RequestId id, std::uint64_t client, int n_prompt = 10) {
  auto s = std::make_unique<engine::Sequence>();
  s->id = id;
  s->request.client = client;
  s->n_prompt = n_prompt;
  return s;
}

/// Takes one and charges its client.
engine::RequestId serve(engine::FairQueue& queue, int n_tokens) {
  const engine::RequestId expected = queue.next()->id;
  const engine::SequencePtr s = queue.pop();
  CHECK(s->id == expected);
  queue.charge(s->request.client, n_tokens);
  return s->id;
}

}  // namespace

TEST_CASE("one client's requests come in their order") {
  engine::FairQueue queue;
  CHECK(queue.is_empty());
  CHECK(queue.next() == nullptr);
  for (const engine::RequestId id : {3, 1, 2})
    queue.push(sequence(id, 7));
  CHECK(queue.size() == 3);
  CHECK(queue.n_tokens() == 30);
  for (const engine::RequestId id : {3, 1, 2})
    CHECK(serve(queue, 5) == id);
  CHECK(queue.is_empty());
  CHECK(queue.n_tokens() == 0);
}

TEST_CASE("clients that ask for as much take turns, whoever has more waiting") {
  engine::FairQueue queue;
  for (engine::RequestId id = 0; id < 6; ++id)
    queue.push(sequence(id, 1));
  queue.push(sequence(10, 2));
  queue.push(sequence(11, 2));
  std::vector<engine::RequestId> order;
  while (!queue.is_empty())
    order.push_back(serve(queue, 100));
  CHECK(order == std::vector<engine::RequestId>{0, 10, 1, 11, 2, 3, 4, 5});
}

TEST_CASE("tokens are shared out evenly, not requests") {
  engine::FairQueue queue;
  for (engine::RequestId id = 0; id < 1000; ++id)
    queue.push(sequence(id, id % 2));
  std::map<std::uint64_t, int> given;
  for (int i = 0; i < 400; ++i) {
    const std::uint64_t client = queue.next()->request.client;
    const int n_tokens = client == 0 ? 10 : 70;
    (void)serve(queue, n_tokens);
    given[client] += n_tokens;
    CHECK(std::abs(given[0] - given[1]) <= 70);  // the longest that one is ahead
  }
}

TEST_CASE("who comes late waits for nobody to catch up, and has saved nothing") {
  engine::FairQueue queue;
  for (engine::RequestId id = 0; id < 100; ++id)
    queue.push(sequence(id, 1));
  for (int i = 0; i < 20; ++i)
    (void)serve(queue, 100);
  for (engine::RequestId id = 200; id < 300; ++id)
    queue.push(sequence(id, 2));
  int of_late = 0;
  CHECK(queue.next()->id == 200);  // next, as the other has just been served
  for (int i = 0; i < 20; ++i)
    of_late += serve(queue, 100) >= 200 ? 1 : 0;
  CHECK(of_late >= 10);
  CHECK(of_late <= 11);
}

TEST_CASE("a client that comes back has not been forgotten while others are behind it") {
  engine::FairQueue queue;
  for (engine::RequestId id = 0; id < 50; ++id)
    queue.push(sequence(id, 1));
  int of_greedy = 0;
  for (int i = 0; i < 20; ++i) {  // never more than one waits, of ten times as many tokens
    queue.push(sequence(static_cast<engine::RequestId>(100 + i), 2));
    while (queue.next()->request.client != 2)
      (void)serve(queue, 10);
    (void)serve(queue, 100);
    ++of_greedy;
    if (queue.size() < 12) break;
  }
  CHECK(of_greedy <= 5);  // a turn for ten of the other's
}

TEST_CASE(
    "however many clients come, those before them get their turn, and none is remembered for "
    "long") {
  engine::FairQueue queue;
  queue.push(sequence(0, 1));
  (void)serve(queue, 5000);  // much, and it asks again
  queue.push(sequence(1, 1));
  // Two others wait at any time, each for a turn of 100: an even share of 5000 is 50 turns of three clients.
  queue.push(sequence(2, 2));
  int n_turns = 0;
  for (engine::RequestId id = 3; queue.next()->id != 1; ++id) {
    queue.push(sequence(id, id));
    (void)serve(queue, 100);
    REQUIRE(++n_turns <= 5000 / 100 * 3);
    CHECK(queue.n_clients() <= 8);
  }
  (void)serve(queue, 100);
}

TEST_CASE("equal clients that nothing was given yet come by turns") {
  engine::FairQueue queue;
  for (engine::RequestId id = 0; id < 6; ++id)
    queue.push(sequence(id, id / 2));
  std::vector<engine::RequestId> order;
  while (!queue.is_empty())
    order.push_back(serve(queue, 0));
  CHECK(order == std::vector<engine::RequestId>{0, 2, 4, 1, 3, 5});
}

TEST_CASE("who is taken out leaves the others in their order") {
  engine::FairQueue queue;
  for (engine::RequestId id = 0; id < 10; ++id)
    queue.push(sequence(id, id % 3, static_cast<int>(id)));
  const auto taken = queue.take_if([](const engine::Sequence& s) { return s.id % 2 == 0; });
  CHECK(taken.size() == 5);
  CHECK(queue.size() == 5);
  CHECK(queue.n_tokens() == 1 + 3 + 5 + 7 + 9);
  int n = 0;
  queue.for_each([&](const engine::Sequence& s) {
    CHECK(s.id % 2 == 1);
    ++n;
  });
  CHECK(n == 5);
  std::map<std::uint64_t, engine::RequestId> last;
  while (!queue.is_empty()) {
    const std::uint64_t client = queue.next()->request.client;
    const engine::RequestId id = serve(queue, 1);
    CHECK(id >= last[client]);
    last[client] = id;
  }
}

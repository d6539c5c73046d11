/// \file  JSON schemas as grammars.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/json/json.hpp>
#include <lmd/text/grammar.hpp>
#include <lmd/text/grammar_budget.hpp>
#include <lmd/text/grammar_builder.hpp>
#include <lmd/text/json_grammar.hpp>
#include <lmd/text/json_number_grammar.hpp>
#include <lmd/text/json_schema_keywords.hpp>
#include <lmd/text/json_schema_merge.hpp>
#include <lmd/text/json_string_grammar.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text {
namespace detail {

/// Writes the grammar of a schema. Objects, arrays and references become rules, made one after the other, so that
/// schemas may refer to themselves; equal ones share a rule.
class JsonSchemaCompiler {
 public:
  using Expr = GrammarBuilder::Expr;
  using Schema = json::OrderedJson;

  /// \pre `root` outlives the object
  JsonSchemaCompiler(JsonGrammar& json, const Schema& root)
      : json_(&json),
        b_(&json.builder()),
        strings_(json),
        numbers_(json),
        merger_(root, b_->meter()),
        root_(&root) {}

  /// Whole values of the schema. All rules that it needs are defined when this returns.
  [[nodiscard]] Expr compile() { return with_rules(value(*root_, 0)); }

  /// Those of them that are objects.
  [[nodiscard]] Expr compile_object() {
    const bool is_object =
        root_->is_object() && root_->contains("type") && (*root_)["type"] == "object";
    if (is_object) return compile();
    const Schema object = {{"type", "object"}};
    return with_rules(value(Schema{{"allOf", Schema::array({object, *root_})}}, 0));
  }

 private:
  enum class Shape : std::uint8_t { kAny, kObject, kArray };
  /// A rule whose body is still to be written.
  struct Pending {
    GrammarBuilder::Rule rule;
    Shape shape;
    Schema schema;
    int depth;
  };
  /// A property that objects may have. \pre the object's schema outlives it
  struct Property {
    std::string name;
    const Schema* schema;
    bool is_required;
  };
  /// How objects go on behind their properties: names of `key` with a value of `value`.
  struct Others {
    bool are_allowed = false;
    Expr key = {};
    Expr value = {};
  };

  [[nodiscard]] Expr with_rules(Expr out) {
    while (!pending_.empty()) {
      const Pending next = std::move(pending_.front());
      pending_.pop_front();
      b_->define(next.rule, body(next));
    }
    return out;
  }

  [[nodiscard]] Expr body(const Pending& pending) {
    switch (pending.shape) {
      case Shape::kObject:
        return object(pending.schema, pending.depth);
      case Shape::kArray:
        return array(pending.schema, pending.depth);
      case Shape::kAny:
        break;
    }
    return value(pending.schema, pending.depth);
  }

  void count_nodes(std::size_t n) {
    require_nodes(n);
    n_nodes_ += n;
  }
  /// \throws Error(kConfig) unless `n` more would be within the budget.
  void require_nodes(std::size_t n) const {
    LMD_REQUIRE(n_nodes_ + n <= static_cast<std::size_t>(b_->meter().budget().schema_nodes),
                ErrorCode::kConfig,
                "grammar: more than " + std::to_string(b_->meter().budget().schema_nodes) +
                    " subschemas and values in a JSON schema are not supported");
  }

  [[nodiscard]] Expr value(const Schema& schema, int depth) {
    count_nodes(1);
    refuse_schema_if(depth > b_->meter().budget().schema_depth, "a subschema nested so deep");
    check_keywords(schema);
    if (schema == Schema(true)) return json_->value();
    if (schema == Schema(false)) return b_->nothing();
    const std::string only = only_assertion(schema);
    if (only == "$ref") return reference(schema["$ref"].get_ref<const std::string&>());
    if (only == "anyOf" || only == "oneOf")
      return alternatives(schema[only], only == "oneOf", depth);
    std::vector<Expr> parts;
    for (const Schema& plain : merger_.flatten(schema))
      parts.push_back(plain_value(plain, depth));
    return b_->choice(std::move(parts));
  }

  /// The one keyword of a schema that is no annotation; empty when there are none or more.
  [[nodiscard]] static std::string only_assertion(const Schema& schema) {
    std::string only;
    for (const auto& [key, unused] : schema.items()) {
      if (!is_assertion(key)) continue;
      if (!only.empty()) return {};
      only = key;
    }
    return only;
  }

  [[nodiscard]] Expr reference(const std::string& text) {
    const auto [at, is_new] = references_.try_emplace(text);
    if (is_new) {
      at->second = b_->rule(false);
      pending_.push_back({at->second, Shape::kAny, merger_.resolve(text), 0});
    }
    return b_->call(at->second);
  }

  [[nodiscard]] Expr alternatives(const Schema& schemas, bool is_one_of, int depth) {
    merger_.require_few(schemas.size());
    if (is_one_of) {
      std::vector<std::vector<Schema>> plain;
      for (const Schema& schema : schemas)
        plain.push_back(merger_.flatten(schema));
      merger_.refuse_overlap(plain);
    }
    std::vector<Expr> parts;
    for (const Schema& schema : schemas)
      parts.push_back(value(schema, depth + 1));
    return b_->choice(std::move(parts));
  }

  [[nodiscard]] Expr plain_value(const Schema& schema, int depth) {
    if (schema == Schema(true)) return json_->value();
    if (schema == Schema(false)) return b_->nothing();
    const JsonTypes types = types_made(schema);
    if (schema.contains("enum")) return values(schema, types);
    if (schema.empty()) return json_->value();
    std::vector<Expr> parts;
    if ((types & kJsonNull) != 0) parts.push_back(b_->text("null"));
    if ((types & kJsonBoolean) != 0)
      parts.push_back(b_->choice({b_->text("true"), b_->text("false")}));
    if ((types & kJsonNumber) != 0) {
      parts.push_back(number(schema, false));
    } else if ((types & kJsonInteger) != 0) {
      parts.push_back(number(schema, true));
    }
    if ((types & kJsonString) != 0) parts.push_back(strings_.string(string_rules(schema)));
    if ((types & kJsonObject) != 0) parts.push_back(deferred(schema, Shape::kObject, depth));
    if ((types & kJsonArray) != 0) parts.push_back(deferred(schema, Shape::kArray, depth));
    return b_->choice(std::move(parts));
  }

  /// The values of `enum` that satisfy the other keywords.
  [[nodiscard]] Expr values(const Schema& schema, JsonTypes types) {
    if (!schema.contains("type")) types = kAllJsonTypes;
    std::vector<Expr> parts;
    count_nodes(schema["enum"].size());
    for (const Schema& value : schema["enum"]) {
      if (!has_type(value, types)) continue;
      if (value.is_structured()) {
        const JsonTypes type = type_of_value(value);
        for (const auto& [key, unused] : schema.items())
          refuse_schema_if(find_keyword(key)->types == type,
                           "enum of objects or arrays beside other keywords");
      }
      if (value.is_string() &&
          !strings_.satisfies(value.get_ref<const std::string&>(), string_rules(schema)))
        continue;
      if (value.is_number() && !is_within(value.get<double>(), range_of(schema))) continue;
      b_->meter().spend(JsonGrammar::text_of(value).size());
      parts.push_back(json_->literal(value));
    }
    return b_->choice(std::move(parts));
  }

  [[nodiscard]] static NumberRange range_of(const Schema& schema) {
    NumberRange range;
    const auto at = [&](const char* key) { return schema[key].template get<double>(); };
    if (schema.contains("minimum")) range.low = NumberBound{at("minimum"), false};
    if (schema.contains("maximum")) range.high = NumberBound{at("maximum"), false};
    if (schema.contains("exclusiveMinimum")) {
      const double low = at("exclusiveMinimum");
      if (!range.low || range.low->value <= low) range.low = NumberBound{low, true};
    }
    if (schema.contains("exclusiveMaximum")) {
      const double high = at("exclusiveMaximum");
      if (!range.high || range.high->value >= high) range.high = NumberBound{high, true};
    }
    return range;
  }
  [[nodiscard]] static bool is_within(double value, const NumberRange& range) {
    if (range.low &&
        (value < range.low->value || (range.low->is_exclusive && value == range.low->value)))
      return false;
    return !range.high || (value <= range.high->value &&
                           !(range.high->is_exclusive && value == range.high->value));
  }
  [[nodiscard]] Expr number(const Schema& schema, bool is_integer) {
    const NumberRange range = range_of(schema);
    const bool is_free = !range.low && !range.high;
    const Key key{is_integer, range.low ? range.low->value : 0.0,
                  range.high ? range.high->value : 0.0,
                  (range.low ? 1 + range.low->is_exclusive : 0) +
                      4 * (range.high ? 1 + range.high->is_exclusive : 0)};
    const auto [at, is_new] = number_rules_.try_emplace(key);
    if (is_new && is_free)
      at->second = b_->call_of(is_integer ? json_->integer() : json_->number());
    if (is_new && !is_free)
      at->second = b_->call_of(is_integer ? numbers_.integer(range) : numbers_.number(range));
    return at->second;
  }

  [[nodiscard]] StringRules string_rules(const Schema& schema) const {
    StringRules rules;
    rules.min_length = count(schema, "minLength", 0);
    rules.max_length = count(schema, "maxLength", GrammarBuilder::kUnbounded);
    if (schema.contains("pattern")) {
      for (const Schema& pattern : schema["pattern"])
        rules.patterns.push_back(pattern.get<std::string>());
    }
    if (schema.contains("format")) {
      for (const Schema& format : schema["format"])
        rules.add_format(format.get_ref<const std::string&>());
    }
    return rules;
  }

  /// \throws Error(kConfig) when the count is larger than the budget's.
  [[nodiscard]] int count(const Schema& schema, const char* key, int fallback) const {
    if (!schema.contains(key)) return fallback;
    const auto n = static_cast<std::int64_t>(schema[key].get<double>());
    LMD_REQUIRE(n <= b_->meter().budget().repeat, ErrorCode::kConfig,
                "grammar: " + std::string(key) + " in a JSON schema is above " +
                    std::to_string(b_->meter().budget().repeat));
    return static_cast<int>(n);
  }

  /// A rule for an object or array; equal ones are the same rule.
  [[nodiscard]] Expr deferred(const Schema& schema, Shape shape, int depth) {
    std::string key = (shape == Shape::kObject ? "o" : "a") + JsonGrammar::text_of(schema);
    b_->meter().spend(key.size());
    const auto [at, is_new] = structures_.try_emplace(std::move(key));
    if (is_new) {
      at->second = b_->rule(true);
      pending_.push_back({at->second, shape, schema, depth});
    }
    return b_->call(at->second);
  }

  /// Properties in the order of the schema, then those that `required` adds, then others. Those that are not
  /// required may be left out.
  ///
  /// States of the graph:  2 i and 2 i + 1 for property i: something stands before it; only it is missing.
  [[nodiscard]] Expr object(const Schema& schema, int depth) {
    const std::vector<Property> properties = properties_of(schema);
    const auto n = static_cast<std::uint32_t>(properties.size());
    const Others others = other_properties(schema, properties, depth);
    const bool has_one = needs_one(schema, properties);
    // Nodes: begin, then for i in 0..n "members end or a comma follows" and "a member i or later follows", then end.
    const auto after = [](std::uint32_t i) { return 1 + 2 * i; };
    const auto before = [](std::uint32_t i) { return 2 + 2 * i; };
    const std::uint32_t end = before(n) + 1;
    std::vector<GrammarBuilder::GraphEdge> edges = {{0, b_->text("{"), before(0)}};
    bool is_optional_rest = true;
    for (std::uint32_t i = n; i-- > 0;) {
      const auto& [name, of_value, is_required] = properties[i];
      const Expr member = b_->sequence(
          {b_->text(JsonGrammar::text_of(name)), json_->colon(), value(*of_value, depth + 1)});
      edges.push_back({before(i), member, after(i + 1)});
      if (!is_required) edges.push_back({before(i), b_->empty(), before(i + 1)});
      is_optional_rest = is_optional_rest && !is_required;
      if (is_optional_rest && i > 0) edges.push_back({after(i), b_->text("}"), end});
    }
    for (std::uint32_t i = 1; i <= n; ++i)
      edges.push_back({after(i), json_->comma(), before(i)});
    if (n > 0) edges.push_back({after(n), b_->text("}"), end});
    if (is_optional_rest && !has_one) edges.push_back({0, b_->text("{}"), end});
    if (others.are_allowed) add_others(schema, others, n, before(n), end, edges);
    return b_->graph(end + 1, std::move(edges));
  }

  void add_others(const Schema& schema,
                  const Others& others,
                  std::uint32_t n_named,
                  std::uint32_t from,
                  std::uint32_t end,
                  std::vector<GrammarBuilder::GraphEdge>& edges) {
    const Expr member = b_->sequence({others.key, json_->colon(), others.value});
    int most = GrammarBuilder::kUnbounded;
    if (schema.contains("maxProperties"))
      most = count(schema, "maxProperties", 0) - static_cast<int>(n_named);
    if (most != GrammarBuilder::kUnbounded && most < 1) return;
    const Expr more = b_->repeat(b_->sequence({json_->comma(), member}), 0,
                                 most == GrammarBuilder::kUnbounded ? most : most - 1);
    edges.push_back({from, b_->sequence({member, more, b_->text("}")}), end});
  }

  /// Those that may stand in an object, in their order.
  [[nodiscard]] std::vector<Property> properties_of(const Schema& schema) const {
    static const Schema kEmpty = Schema::object();
    static const Schema kAny = true;
    static const Schema kNever = false;
    const Schema& named = schema.contains("properties") ? schema["properties"] : kEmpty;
    const Schema& required = schema.contains("required") ? schema["required"] : kEmpty;
    require_nodes(named.size());
    std::set<std::string_view> missing;
    for (const Schema& name : required)
      missing.insert(name.get_ref<const std::string&>());
    require_nodes(missing.size());
    std::vector<Property> out;
    for (const auto& [name, property] : named.items()) {
      const bool is_required = missing.erase(name) > 0;
      if (is_required || property != kNever) out.push_back({name, &property, is_required});
    }
    const Schema* others =
        schema.contains("additionalProperties") ? &schema["additionalProperties"] : &kAny;
    for (const Schema& name : required) {
      const auto& text = name.get_ref<const std::string&>();
      if (missing.erase(text) > 0) out.push_back({text, others, true});
    }
    return out;
  }

  /// Where `properties` are given, others are made only when the schema allows them in so many words.
  [[nodiscard]] Others other_properties(const Schema& schema,
                                        const std::vector<Property>& properties,
                                        int depth) {
    Others others;
    const bool has_rest = schema.contains("additionalProperties");
    if (schema.contains("patternProperties") && !schema["patternProperties"].empty()) {
      const Schema& patterns = schema["patternProperties"];
      const bool is_closed = !has_rest || schema["additionalProperties"] == Schema(false);
      refuse_schema_if(
          patterns.size() > 1 || !properties.empty() || !is_closed || schema.contains("properties"),
          "patternProperties beside other properties");
      others.key = strings_.string({0, GrammarBuilder::kUnbounded, {patterns.begin().key()}});
      others.value = value(patterns.front(), depth + 1);
      others.are_allowed = true;
      return others;
    }
    const bool is_open = has_rest ? schema["additionalProperties"] != Schema(false)
                                  : !schema.contains("properties") && properties.empty();
    if (!is_open) return others;
    std::vector<std::string> excluded;
    for (const Property& property : properties)
      excluded.push_back(property.name);
    if (schema.contains("properties")) {
      for (const auto& [name, unused] : schema["properties"].items())
        excluded.push_back(name);
    }
    others.key = strings_.other_than(excluded);
    others.value = has_rest ? value(schema["additionalProperties"], depth + 1) : json_->value();
    others.are_allowed = true;
    return others;
  }

  /// Whether minProperties asks for one property where none is required. Larger numbers, and a maxProperties that named
  /// properties may exceed, are refused.
  [[nodiscard]] bool needs_one(const Schema& schema,
                               const std::vector<Property>& properties) const {
    const auto n_required = std::count_if(properties.begin(), properties.end(),
                                          [](const Property& p) { return p.is_required; });
    const auto n_named = static_cast<int>(properties.size());
    const int least = count(schema, "minProperties", 0);
    refuse_schema_if(least > 1 && least > n_required,
                     "minProperties above 1 and the number of required ones");
    if (schema.contains("maxProperties")) {
      const int most = count(schema, "maxProperties", 0);
      refuse_schema_if(most < n_named, "maxProperties below the number of properties");
    }
    return least == 1 && n_required == 0;
  }

  /// `prefixItems`, then `items`; where only the former are given, there are no more.
  [[nodiscard]] Expr array(const Schema& schema, int depth) {
    const std::size_t n_first = schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
    const int least = count(schema, "minItems", 0);
    int most = count(schema, "maxItems", GrammarBuilder::kUnbounded);
    const bool is_closed = n_first > 0 && !schema.contains("items");
    if (is_closed)
      most =
          static_cast<int>(most < 0 ? n_first : std::min(n_first, static_cast<std::size_t>(most)));
    if (most >= 0 && least > most) return b_->nothing();
    if (most == 0) return b_->text("[]");
    Expr rest = b_->nothing();
    if (!is_closed)
      rest = schema.contains("items") ? value(schema["items"], depth + 1) : json_->value();
    const auto n = static_cast<int>(n_first);
    const auto left = [&](int used) { return most < 0 ? most : std::max(0, most - used); };
    const Expr more = b_->sequence({json_->comma(), rest});
    Expr tail = b_->repeat(more, std::max(0, least - n), left(n));
    for (int i = n; i-- > 1;) {
      const Expr item = value(schema["prefixItems"][static_cast<std::size_t>(i)], depth + 1);
      tail = b_->sequence({json_->comma(), item, tail});
      if (left(i) == 0)
        tail = b_->empty();
      else if (least <= i)
        tail = b_->optional(tail);
    }
    Expr all = n > 0 ? b_->sequence({value(schema["prefixItems"][0], depth + 1), tail})
                     : b_->sequence({rest, b_->repeat(more, std::max(0, least - 1), left(1))});
    if (least == 0) all = b_->optional(all);
    return b_->sequence({b_->text("["), all, b_->text("]")});
  }

  struct Key {
    bool is_integer;
    double low, high;
    int kinds;  // which bounds there are, and whether they are exclusive
    auto operator<=>(const Key&) const = default;
  };

  JsonGrammar* json_;
  GrammarBuilder* b_;
  JsonStringRules strings_;
  JsonNumberRange numbers_;
  SchemaMerger merger_;
  const Schema* root_;
  std::size_t n_nodes_ = 0;
  std::deque<Pending> pending_;
  std::map<std::string, GrammarBuilder::Rule> references_;
  std::map<std::string, GrammarBuilder::Rule> structures_;  // by shape and plain schema
  std::map<Key, Expr> number_rules_;
};

}  // namespace detail

/// JSON texts that satisfy a schema, on one line: see JsonGrammar for white space and numbers.
///
/// Enforced:  type, enum, const, properties, required, additionalProperties, one pattern of patternProperties, items,
///            prefixItems, all bounds, pattern (RegexReader), format (date-time, date, time, email, uuid, ipv4; others say
///            nothing), nullable, $ref within the document, anyOf, allOf, oneOf where alternatives are apart.
/// Keys come in the schema's order. Where properties or prefixItems are given, others are made only when
/// additionalProperties or items says so. Not every valid text is made, but every text that is made is valid.
/// Errors:  \throws Error(kConfig) naming the keyword that cannot be enforced, never text of the schema.
[[nodiscard]] inline std::shared_ptr<const Grammar> compile_json_schema(
    std::string_view schema_text, const GrammarBudget& budget = {}) {
  detail::GrammarMeter meter(budget);
  detail::GrammarBuilder builder(meter);
  detail::JsonGrammar json(builder);
  const json::OrderedJson schema = detail::parse_schema(schema_text, meter);
  return builder.finish(detail::JsonSchemaCompiler(json, schema).compile());
}

}  // namespace lmd::text

/// \file  JSON schemas taken apart: references, and combinations as lists of plain alternatives.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/json/json.hpp>
#include <lmd/text/grammar_budget.hpp>
#include <lmd/text/json_schema_keywords.hpp>

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text::detail {

/// A schema without $ref, allOf, anyOf and oneOf is called plain here. `pattern` and `format` of plain schemas are lists:
/// all of them hold.
class SchemaMerger {
 public:
  using Schema = json::OrderedJson;

  /// \pre both outlive the object
  SchemaMerger(const Schema& root, GrammarMeter& meter) : root_(&root), meter_(&meter) {}

  /// Where `#`, `#/$defs/x` and other JSON pointers into the document lead.
  /// \throws Error(kConfig) for any other reference.
  [[nodiscard]] const Schema& resolve(const std::string& reference) const {
    refuse_schema_if(!reference.starts_with('#'), "$ref out of the document");
    refuse_schema_if(reference.size() > 1 && reference[1] != '/', "$ref to an anchor");
    const Schema* at = root_;
    std::string_view rest = std::string_view(reference).substr(1);
    while (!rest.empty()) {
      rest.remove_prefix(1);
      const std::string key = pointer_key(rest.substr(0, rest.find('/')));
      rest.remove_prefix(std::min(rest.find('/'), rest.size()));
      meter_->spend(1 + at->size());  // objects are searched from the front
      const bool is_index = at->is_array() && !key.empty() && key.size() < 6 &&
                            key.find_first_not_of("0123456789") == std::string::npos;
      if (is_index && std::stoul(key) < at->size()) {
        at = &(*at)[std::stoul(key)];
      } else {
        refuse_schema_if(!at->is_object() || !at->contains(key), "$ref to nothing");
        at = &*at->find(key);
      }
    }
    return *at;
  }

  /// Plain schemas of which a value satisfies one if and only if it satisfies `schema`.
  /// \throws Error(kConfig) when there are too many, a keyword is not supported, or references go round.
  [[nodiscard]] std::vector<Schema> flatten(const Schema& schema, int depth = 0) {
    spend_copy(schema);
    refuse_schema_if(depth > meter_->budget().schema_depth, "a combination nested so deep");
    check_keywords(schema);
    if (schema.is_boolean()) return {schema};
    std::vector<Schema> out = {plain_part(schema)};
    if (schema.contains("$ref")) {
      out = product(out, flatten(resolve(schema["$ref"].get_ref<const std::string&>()), depth + 1));
    }
    if (schema.contains("allOf")) {
      for (const Schema& part : schema["allOf"])
        out = product(out, flatten(part, depth + 1));
    }
    for (const char* keyword : {"anyOf", "oneOf"}) {
      if (!schema.contains(keyword)) continue;
      std::vector<std::vector<Schema>> parts;
      std::vector<Schema> all;
      for (const Schema& part : schema[keyword]) {
        parts.push_back(flatten(part, depth + 1));
        all.insert(all.end(), parts.back().begin(), parts.back().end());
        require_few(all.size());
      }
      if (keyword[0] == 'o') refuse_overlap(parts);
      out = product(out, all);
    }
    return out;
  }

  /// \throws Error(kConfig) unless no value can satisfy two of the alternatives.
  void refuse_overlap(const std::vector<std::vector<Schema>>& alternatives) {
    for (std::size_t i = 0; i < alternatives.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        for (const Schema& a : alternatives[i]) {
          for (const Schema& b : alternatives[j])
            refuse_schema_if(!are_apart(a, b, 0), "oneOf whose alternatives may overlap");
        }
      }
    }
  }

  void require_few(std::size_t n) const {
    LMD_REQUIRE(n <= static_cast<std::size_t>(meter_->budget().alternatives), ErrorCode::kConfig,
                "grammar: more than " + std::to_string(meter_->budget().alternatives) +
                    " alternatives in a JSON schema are not supported");
  }

 private:
  /// Counts what copying a schema costs: memory for each of its values.
  void spend_copy(const Schema& schema) const {
    constexpr std::size_t kStepsPerValue = 8;  // 100 ns beside the 10 ns of other steps
    meter_->spend(kStepsPerValue);
    if (!schema.is_structured()) return;
    for (const Schema& part : schema)
      spend_copy(part);
  }

  /// A key of a JSON pointer in a fragment: `%25` is %, `~1` is /, `~0` is ~.
  [[nodiscard]] static std::string pointer_key(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto digit = [&](std::size_t at) {
        const std::size_t value =
            at < text.size()
                ? std::string_view("0123456789abcdef").find(static_cast<char>(text[at] | 0x20))
                : std::string_view::npos;
        refuse_schema_if(value == std::string_view::npos, "$ref that is not well formed");
        return value;
      };
      if (text[i] == '%') {
        plain += static_cast<char>(digit(i + 1) * 16 + digit(i + 2));
        i += 2;
      } else {
        plain += text[i];
      }
    }
    std::string key;
    for (std::size_t i = 0; i < plain.size(); ++i) {
      const bool is_escape = plain[i] == '~' && i + 1 < plain.size();
      key += is_escape ? (plain[++i] == '1' ? '/' : '~') : plain[i];
    }
    return key;
  }

  /// The keywords that are no combination, in the form of plain schemas.
  [[nodiscard]] static Schema plain_part(const Schema& schema) {
    Schema out = Schema::object();
    for (const auto& [key, value] : schema.items()) {
      if (!is_assertion(key) || is_combination(key)) continue;
      if (key == "pattern" || key == "format") {
        out[key] = Schema::array({value});
      } else if (key == "const") {
        out["enum"] = Schema::array({value});
      } else if (key != "enum" || !out.contains("enum")) {
        out[key] = value;
      }
    }
    if (schema.contains("const") && schema.contains("enum")) {
      const Schema& values = schema["enum"];
      const bool is_one = std::find(values.begin(), values.end(), schema["const"]) != values.end();
      if (!is_one) out["enum"] = Schema::array();
    }
    if (out.contains("items") && out["items"].is_array()) {  // as drafts before 2020-12 have it
      if (!out["items"].empty()) out["prefixItems"] = out["items"];
      out.erase("items");
      if (schema.contains("additionalItems")) out["items"] = schema["additionalItems"];
    }
    out.erase("additionalItems");
    if (schema.contains("type")) {
      JsonTypes types = types_of(schema["type"]);
      if (schema.contains("nullable") && schema["nullable"] == true) types |= kJsonNull;
      out["type"] = type_names(types);
    }
    out.erase("nullable");
    return out;
  }

  [[nodiscard]] std::vector<Schema> product(const std::vector<Schema>& left,
                                            const std::vector<Schema>& right) {
    std::vector<Schema> out;
    for (const Schema& a : left) {
      for (const Schema& b : right) {
        out.push_back(merged(a, b));
        if (out.back() == Schema(false)) out.pop_back();
        require_few(out.size());
      }
    }
    if (out.empty()) out.emplace_back(false);
    return out;
  }

  /// Both of two plain schemas. Schemas inside them become allOf of both.
  [[nodiscard]] Schema merged(const Schema& a, const Schema& b) {
    if (a == Schema(true)) return b;
    if (b == Schema(true)) return a;
    if (a == Schema(false) || b == Schema(false)) return false;
    spend_copy(a);
    spend_copy(b);
    Schema out = a;
    for (const auto& [key, value] : b.items()) {
      if (key == "properties" || key == "additionalProperties" || key == "items" ||
          key == "prefixItems")
        continue;
      if (!out.contains(key)) {
        out[key] = value;
      } else if (key == "type") {
        const JsonTypes types = common_types(types_of(out[key]), types_of(value));
        if (types == 0) return false;
        out[key] = type_names(types);
      } else if (key == "enum") {
        out[key] = common_values(out[key], value);
        if (out[key].empty()) return false;
      } else if (key == "required" || key == "pattern" || key == "format") {
        add_missing(a[key], value, out[key]);
      } else if (key.starts_with("min") || key == "exclusiveMinimum") {
        if (value > out[key]) out[key] = value;
      } else if (key.starts_with("max") || key == "exclusiveMaximum") {
        if (value < out[key]) out[key] = value;
      } else {
        refuse_schema_if(out[key] != value, "patternProperties twice in a combination");
      }
    }
    merge_properties(a, b, out);
    merge_items(a, b, out);
    return out;
  }

  /// Adds the strings of `more` that `list` lacks to a copy of it.
  static void add_missing(const Schema& list, const Schema& more, Schema& copy) {
    std::set<std::string_view> known;
    for (const Schema& item : list)
      known.insert(item.get_ref<const std::string&>());
    for (const Schema& item : more) {
      if (known.insert(item.get_ref<const std::string&>()).second) copy.push_back(item);
    }
  }

  [[nodiscard]] Schema common_values(const Schema& a, const Schema& b) {
    Schema out = Schema::array();
    for (const Schema& value : a) {
      meter_->spend(b.size());
      if (std::find(b.begin(), b.end(), value) != b.end()) out.push_back(value);
    }
    return out;
  }

  [[nodiscard]] static Schema both(const Schema& a, const Schema& b) {
    if (a == b || b == Schema(true)) return a;
    if (a == Schema(true)) return b;
    return Schema{{"allOf", Schema::array({a, b})}};
  }

  /// What a schema says of a property: its own schema, or that of all others.
  [[nodiscard]] static Schema property_of(const Schema& schema, const std::string& name) {
    if (schema.contains("properties") && schema["properties"].contains(name))
      return schema["properties"][name];
    return schema.contains("additionalProperties") ? schema["additionalProperties"] : Schema(true);
  }

  [[nodiscard]] static bool speaks_of_properties(const Schema& schema) {
    return schema.contains("properties") || schema.contains("additionalProperties");
  }
  [[nodiscard]] static std::size_t n_properties(const Schema& schema) {
    return schema.contains("properties") ? schema["properties"].size() : 0;
  }

  void merge_properties(const Schema& a, const Schema& b, Schema& out) const {
    if (!speaks_of_properties(b)) return;  // `out` has those of `a`
    if (!speaks_of_properties(a)) {
      for (const char* key : {"properties", "additionalProperties"})
        if (b.contains(key)) out[key] = b[key];
      return;
    }
    const std::size_t n = n_properties(a) + n_properties(b);
    meter_->spend(n * n);  // objects in the order of their keys are searched from the front
    for (const Schema* one : {&a, &b}) {
      if (!one->contains("properties")) continue;
      for (const auto& [name, unused] : (*one)["properties"].items())
        out["properties"][name] = both(property_of(a, name), property_of(b, name));
    }
    if (!b.contains("additionalProperties")) return;
    const Schema& others = b["additionalProperties"];
    out["additionalProperties"] =
        a.contains("additionalProperties") ? both(a["additionalProperties"], others) : others;
  }

  static void merge_items(const Schema& a, const Schema& b, Schema& out) {
    const auto rest_of = [](const Schema& s) {
      return s.contains("items") ? s["items"] : Schema(true);
    };
    const auto n_of = [](const Schema& s) {
      return s.contains("prefixItems") ? s["prefixItems"].size() : 0;
    };
    const auto item_of = [&](const Schema& s, std::size_t i) {
      return i < n_of(s) ? s["prefixItems"][i] : rest_of(s);
    };
    if (a.contains("items") || b.contains("items")) out["items"] = both(rest_of(a), rest_of(b));
    for (std::size_t i = 0; i < std::max(n_of(a), n_of(b)); ++i) {
      if (i == 0) out["prefixItems"] = Schema::array();
      out["prefixItems"].push_back(both(item_of(a, i), item_of(b, i)));
    }
  }

  /// Whether certainly no value that is made of one satisfies the other.
  [[nodiscard]] bool are_apart(const Schema& a, const Schema& b, int depth) {
    meter_->spend(1);
    if (a == Schema(false) || b == Schema(false)) return true;
    if (!a.is_object() || !b.is_object()) return false;
    if (a.contains("enum") && b.contains("enum"))
      return common_values(a["enum"], b["enum"]).empty();
    const JsonTypes common = common_types(types_made(a), possible_types(b)) |
                             common_types(possible_types(a), types_made(b));
    if (common == 0) return true;
    if (common == kJsonObject)
      return has_apart_property(a, b, depth) || has_apart_property(b, a, depth);
    const bool is_number = (common & ~(kJsonNumber | kJsonInteger)) == 0;
    return is_number && (is_below(a, b) || is_below(b, a));
  }

  /// All types where the schema names none.
  [[nodiscard]] static JsonTypes possible_types(const Schema& schema) {
    JsonTypes types = schema.contains("type") ? types_of(schema["type"]) : kAllJsonTypes;
    if (!schema.contains("enum")) return types;
    JsonTypes of_values = 0;
    for (const Schema& value : schema["enum"])
      of_values |= type_of_value(value);
    return common_types(types, of_values);
  }

  /// A property that `a` requires, and `b` forbids or requires to be something else.
  [[nodiscard]] bool has_apart_property(const Schema& a, const Schema& b, int depth) {
    if (!a.contains("required") || depth > 2) return false;
    for (const Schema& required : a["required"]) {
      const auto name = required.get<std::string>();
      meter_->spend(n_properties(a) + n_properties(b) +
                    (b.contains("required") ? b["required"].size() : 0));
      const Schema in_b = property_of(b, name);
      if (in_b == Schema(false)) return true;
      const bool is_required =
          b.contains("required") &&
          std::find(b["required"].begin(), b["required"].end(), required) != b["required"].end();
      if (!is_required) continue;
      bool is_apart = true;
      for (const Schema& x : flatten(property_of(a, name), depth + 1)) {
        for (const Schema& y : flatten(in_b, depth + 1))
          is_apart = is_apart && are_apart(x, y, depth + 1);
      }
      if (is_apart) return true;
    }
    return false;
  }

  /// Whether the numbers of `a` are all less than those of `b`.
  [[nodiscard]] static bool is_below(const Schema& a, const Schema& b) {
    const bool has_bounds = a.contains("maximum") && b.contains("minimum");
    if (has_bounds && a["maximum"] < b["minimum"]) return true;
    if (a.contains("exclusiveMaximum") && b.contains("minimum") &&
        a["exclusiveMaximum"] <= b["minimum"])
      return true;
    return a.contains("maximum") && b.contains("exclusiveMinimum") &&
           a["maximum"] <= b["exclusiveMinimum"];
  }

  const Schema* root_;
  GrammarMeter* meter_;
};

}  // namespace lmd::text::detail

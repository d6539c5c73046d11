/// \file  LineEditor over libedit, or over plain reads where that is not built in.
// SPDX-License-Identifier: Apache-2.0
#include "line_editor.hpp"

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <cwchar>
#include <filesystem>
#include <string>
#include <string_view>

#include "interrupt.hpp"
#include "terminal.hpp"
#include <langinfo.h>
#include <unistd.h>

#ifdef LMD_WITH_LIBEDIT
#  include <histedit.h>
#endif

namespace lmd::apps {

namespace {

constexpr const char* kPasteBegin = "\033[200~";

}  // namespace

#ifdef LMD_WITH_LIBEDIT

namespace {

constexpr int kHistorySize = 1000;  // messages
constexpr std::wstring_view kPasteEnd = L"\033[201~";
/// Typed before the editor took the terminal over, it arrives as a zero.
constexpr char kCtrlD = '\004';

/// Characters, not bytes, whatever the locale: models speak UTF-8.
void use_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(::nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

struct LineEditor::Impl {
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::string history_path;
  std::string prompt;
  bool is_interrupted = false;
  bool had_text = false;
  bool has_paste = environment("TERM") != "dumb";

  static Impl& of(EditLine* editor) {
    void* self = nullptr;
    ::el_get(editor, EL_CLIENTDATA, &self);
    return *static_cast<Impl*>(self);
  }

  /// One character; 0 at the end of the input and when Ctrl-C was pressed.
  static int read_char(EditLine* editor, wchar_t* to) {
    Impl& self = of(editor);
    std::mbstate_t state{};
    for (;;) {
      if (wait_for_input() == Input::kInterrupted) {
        const LineInfoW* line = ::el_wline(editor);
        self.is_interrupted = true;
        self.had_text = line->lastchar > line->buffer;
        return 0;
      }
      char byte = 0;
      const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return 0;
      if (byte == '\0') byte = kCtrlD;
      const std::size_t got = std::mbrtowc(to, &byte, 1, &state);
      if (got == static_cast<std::size_t>(-2)) continue;  // more bytes to come
      if (got != static_cast<std::size_t>(-1)) return 1;
      *to = L'\uFFFD';
      return 1;
    }
  }

  /// Inserts everything up to the end mark. Line ends come as carriage returns.
  static unsigned char paste(EditLine* editor, int) {
    std::wstring text;
    wchar_t c = 0;
    while (!text.ends_with(kPasteEnd)) {
      if (read_char(editor, &c) != 1) return CC_EOF;
      text += c;
    }
    text.resize(text.size() - kPasteEnd.size());
    std::wstring kept;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == L'\n' && i > 0 && text[i - 1] == L'\r') continue;
      const wchar_t each = text[i] == L'\r' ? L'\n' : text[i];
      if (each >= L' ' || each == L'\n' || each == L'\t') kept += each;
    }
    while (kept.ends_with(L'\n'))
      kept.pop_back();
    ::el_winsertstr(editor, kept.c_str());
    return CC_REFRESH;
  }

  static char* show_prompt(EditLine* editor) { return of(editor).prompt.data(); }
};

LineEditor::LineEditor(const std::string& history_path) : impl_(std::make_unique<Impl>()) {
  use_utf8();
  HistEvent event{};
  impl_->history_path = history_path;
  impl_->history = ::history_init();
  ::history(impl_->history, &event, H_SETSIZE, kHistorySize);
  ::history(impl_->history, &event, H_SETUNIQUE, 1);
  if (!history_path.empty()) ::history(impl_->history, &event, H_LOAD, history_path.c_str());
  impl_->editor = ::el_init("lmd", stdin, stdout, stderr);
  EditLine* const editor = impl_->editor;
  ::el_set(editor, EL_CLIENTDATA, impl_.get());
  ::el_set(editor, EL_SIGNAL, 0);
  ::el_set(editor, EL_EDITOR, "emacs");
  ::el_set(editor, EL_GETCFN, &Impl::read_char);
  ::el_set(editor, EL_PROMPT_ESC, &Impl::show_prompt, '\1');
  ::el_set(editor, EL_HIST, ::history, impl_->history);
  // The wide form keeps the literals themselves; el_set would copy them and never free the copies.
  ::el_wset(editor, EL_ADDFN, L"lmd-paste", L"insert a pasted block", &Impl::paste);
  ::el_set(editor, EL_BIND, kPasteBegin, "lmd-paste", nullptr);
  ::el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
}

LineEditor::~LineEditor() {
  ::el_end(impl_->editor);
  ::history_end(impl_->history);
}

Line LineEditor::read(const std::string& prompt) {
  impl_->prompt = prompt;
  impl_->is_interrupted = false;
  std::fflush(stdout);
  if (impl_->has_paste) std::fputs("\033[?2004h", stdout);
  int n = 0;
  const char* const text = ::el_gets(impl_->editor, &n);
  if (impl_->has_paste) std::fputs("\033[?2004l", stdout);
  std::fflush(stdout);
  if (impl_->is_interrupted) return {LineOutcome::kInterrupted, {}, impl_->had_text};
  if (text == nullptr || n <= 0) return {};
  std::string line(text);
  if (line.ends_with('\n')) line.pop_back();
  return {LineOutcome::kLine, std::move(line), false};
}

void LineEditor::remember(const std::string& text) {
  HistEvent event{};
  ::history(impl_->history, &event, H_ENTER, text.c_str());
  if (impl_->history_path.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(impl_->history_path).parent_path(),
                                      ignored);
  ::history(impl_->history, &event, H_SAVE, impl_->history_path.c_str());
}

#else

struct LineEditor::Impl {
  std::string pending;  ///< read, not yet returned
  bool has_paste = environment("TERM") != "dumb";
};

namespace {

constexpr std::string_view kPasteEndBytes = "\033[201~";

/// The first line of `text` with its line end; a pasted block counts as within a line. Empty when it
/// is not complete.
std::string_view first_line(std::string_view text) {
  std::size_t from = 0;
  for (;;) {
    const std::size_t end = text.find('\n', from);
    const std::size_t begin = text.find(kPasteBegin, from);
    if (begin == std::string_view::npos || end < begin)
      return end == std::string_view::npos ? std::string_view() : text.substr(0, end + 1);
    from = text.find(kPasteEndBytes, begin);
    if (from == std::string_view::npos) return {};
  }
}

void remove_all(std::string& text, std::string_view mark) {
  for (std::size_t at = 0; (at = text.find(mark, at)) != std::string::npos;)
    text.erase(at, mark.size());
}

}  // namespace

LineEditor::LineEditor(const std::string&) : impl_(std::make_unique<Impl>()) {
  if (impl_->has_paste) std::fputs("\033[?2004h", stdout);
}

LineEditor::~LineEditor() {
  if (impl_->has_paste) std::fputs("\033[?2004l", stdout);
}

Line LineEditor::read(const std::string& prompt) {
  std::fputs(prompt.c_str(), stdout);
  std::fflush(stdout);
  std::string& pending = impl_->pending;
  std::string line;
  while ((line = first_line(pending)).empty()) {
    if (wait_for_input() == Input::kInterrupted) {
      const bool had_text = !pending.empty();
      pending.clear();
      return {LineOutcome::kInterrupted, {}, had_text};
    }
    char bytes[4096];
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return {};
    pending.append(bytes, static_cast<std::size_t>(n));
  }
  pending.erase(0, line.size());
  line.pop_back();
  remove_all(line, kPasteBegin);
  remove_all(line, kPasteEndBytes);
  while (line.ends_with('\n'))
    line.pop_back();
  return {LineOutcome::kLine, std::move(line), false};
}

void LineEditor::remember(const std::string&) {}

#endif

}  // namespace lmd::apps

# Sourced by the scripts beside it and above it: help, and errors in the one line that the programs' have, too.

# The comment at the head of a script.
show_help() {
  sed -n '2,/^[^#]/s/^#\( \|$\)//p' "$1"
  exit
}

fail() {
  echo "error: $*" >&2
  exit 2
}

# An option with what follows it: there must be a value.
need_value() {
  [ -n "${2:-}" ] || fail "$1 has no value: ${0##*/}: give one, see --help"
}

make_folder() {
  mkdir -p "$1" 2>/dev/null || fail "cannot make the folder: $1: name one that can be written"
}

# For a script whose only option is --help; its arguments.
only_help() {
  case ${1:-} in
    "") ;;
    -h | --help) show_help "scripts/${0##*/}" ;;
    *) unknown_option "$1" ;;
  esac
}

unknown_option() {
  fail "unknown option $1: ${0##*/}: see --help"
}

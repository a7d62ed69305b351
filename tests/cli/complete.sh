# Prints what bash completes at the end of a line: `bash complete.sh SCRIPT WORD...`, the last word unfinished.
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
function=$(complete -p "$1" | sed 's/.*-F \([^ ]*\) .*/\1/')
$function
printf '%s\n' "${COMPREPLY[@]}"

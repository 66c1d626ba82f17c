# ---------------------------------------------------------------------------------------------- challenges

# http-01 (RFC 8555, section 8.3) on this host itself. What is published is TOKEN.THUMBPRINT, nothing else can be:
# who may send challenges cannot put a page into the web server.
#
# WEBROOT/.well-known/acme-challenge/TOKEN  what `challenge` wrote there
# DIR/.webroot/TOKEN       says that we did, and in which directory
# DIR/challenges.d/APP.*   what `snippet` wrote for the web server to include
# DIR/.owed/               what stood there before; until the web server has been reloaded

token() {
	case $1 in '' | *[!A-Za-z0-9_-]*) return 1 ;; esac
	[ ${#1} -le 128 ]
}

thumbprint() {
	token "$1" && [ ${#1} = 43 ]
}

host_name() {
	case $1 in '' | *[!a-z0-9.:-]*) return 1 ;; esac
	[ ${#1} -le 253 ]
}

# Standard input, bounded, into $work/lines; complete lines only.
take_lines() {
	head -c $((lines_limit + 1)) >"$work/lines" || die "the lines cannot be stored in $root; is the disk full?"
	[ "$(wc -c <"$work/lines")" -le "$lines_limit" ] || die "more than $lines_limit bytes came in"
	[ -s "$work/lines" ] && [ -z "$(tail -c 1 "$work/lines")" ] || die "what came in is empty or cut off; send it again"
	[ -z "$(tr -d '\n -~' <"$work/lines")" ] || die "what came in is not text"
}

# Where challenges are put; not through a link that the web server's account may have laid.
find_webroot() {
	[ -n "$webroot" ] || die "this host has no webroot for challenges: name one when it is set up"
	at=$webroot/.well-known/acme-challenge
	for directory in "$webroot" "$webroot/.well-known" "$at"; do
		[ ! -L "$directory" ] || die "$directory is a symlink; challenges are not written through one"
		[ -d "$directory" ] || (umask 022 && mkdir -p "$directory" 2>/dev/null) || die "$directory cannot be made; look at its permissions"
	done
}

# Lines TOKEN.THUMBPRINT on standard input.
challenge() {
	take_lines
	find_webroot
	while read -r line; do
		token "${line%%.*}" && thumbprint "${line#*.}" || die "what came in is not TOKEN.THUMBPRINT"
	done <"$work/lines"
	mkdir -p "$root/.webroot" || die "$root cannot be written to; is the disk full?"
	while read -r line; do
		token=${line%%.*}
		# The mark first: what is there without one is not taken away. A new file, not what the web server's account put there.
		printf '%s\n' "$at" >"$root/.webroot/$token" && rm -f "$at/.certfleet" &&
			(set -C && umask 022 && printf '%s' "$line" >"$at/.certfleet") 2>/dev/null &&
			mv -f -T "$at/.certfleet" "$at/$token" || die "$at cannot be written to; look at its permissions and at its free space"
	done <"$work/lines"
}

# What cannot be taken away keeps its mark; `hindrance` has why.
take_away() {
	token "$1" && [ -f "$root/.webroot/$1" ] || return 0
	read -r at <"$root/.webroot/$1" || at=''
	for directory in "${at%/*/*}" "${at%/*}" "$at"; do
		hindrance="$directory is a symlink; challenges are not taken away through one"
		[ ! -L "$directory" ] || return 1
	done
	hindrance="$at cannot be written to; look at its permissions"
	case $at in
	/*) rm -f "$at/$1" "$at/.certfleet" 2>/dev/null || return 1 ;;
	esac
	rm -f "$root/.webroot/$1"
}

# Tokens on standard input, one a line; what we did not publish is passed over.
withdraw() {
	take_lines
	while read -r line; do token "$line" || die "what came in is not a token"; done <"$work/lines"
	while read -r line; do take_away "$line" || die "$hindrance"; done <"$work/lines"
}

# No validation takes an hour: whoever published it has forgotten it. What is in the way of this keeps no run from its work.
take_away_old() {
	[ -d "$root/.webroot" ] || return 0
	find "$root/.webroot" -type f -mmin +60 >"$work/old" 2>/dev/null
	while IFS= read -r line; do take_away "${line##*/}" || :; done <"$work/old"
}

# What the server includes for an app: an answer to every token, of this account alone. $1 app, $2 thumbprint, then names.
stateless() {
	case $server in
	nginx)
		cat >"$work/snippets/$1.conf" <<-END
			location ^~ /.well-known/acme-challenge/ {
			    default_type text/plain;
			    location ~ "^/\.well-known/acme-challenge/([-_a-zA-Z0-9]+)\$" { return 200 "\$1.$2"; }
			    return 404;
			}
		END
		;;
	apache)
		cat >"$work/snippets/$1.conf" <<-END
			<LocationMatch "^/\.well-known/acme-challenge/(?<certfleet>[-_a-zA-Z0-9]+)\$">
			    Require all granted
			    Redirect 200
			    ErrorDocument 200 "%{env:MATCH_CERTFLEET}.$2"
			</LocationMatch>
		END
		;;
	haproxy)
		print=$2
		: >"$work/snippets/$1.names"
		shift 2
		for name; do printf '%s %s\n' "$name" "$print" >>"$work/snippets/${app}.names"; done
		;;
	*) die "$server has no challenge snippet: choose another way for the challenges" ;;
	esac
}

# A file of directory $1 onto its name; an empty one says that there was none.
place_snippet() {
	if [ -s "$1/$2" ]; then
		cp "$1/$2" "$work/one" && mv -f -T "$work/one" "$root/challenges.d/$2" || return 1
	else
		rm -f "$root/challenges.d/$2" || return 1
	fi
	# haproxy has one file for all.
	[ "$server" = haproxy ] || return 0
	{ cat "$root"/challenges.d/*.names 2>/dev/null || :; } >"$work/one" && mv -f -T "$work/one" "$root/challenges.d/haproxy.map"
}

place_snippets() {
	for file in "$1"/*; do
		[ ! -f "$file" ] || place_snippet "$1" "${file##*/}" || die "$root cannot be written to; what is half done there is put right by the next run"
	done
}

new_snippet() {
	place_snippet "$work/snippets" "$1"
}

old_snippet() {
	place_snippet "$root/.owed" "$1"
}

# The web server does not take them together: by halves, until those that are to blame stand alone.
place_by_halves() {
	taken='' group=''
	for file in "$work"/snippets/*; do group=$group${group:+,}${file##*/}; done
	halve "$group"
	groups=${half:+$half }$other
	while [ -n "$groups" ]; do
		group=${groups%% *}
		groups=${groups#"$group"} groups=${groups# }
		each new_snippet "$group" || die "$root cannot be written to; what is half done there is put right by the next run"
		if run "$test"; then
			taken=$taken,$group
			continue
		fi
		keep_output
		each old_snippet "$group" || die "$root cannot be written to; what is half done there is put right by the next run"
		case $group in
		*,*)
			halve "$group"
			groups="$half $other${groups:+ }$groups"
			;;
		*) result "${group%.*}" failed 0 0 "$message_quoted" ;;
		esac
	done
}

# Lines APP THUMBPRINT NAME... on standard input.
snippet() {
	take_lines
	mkdir "$work/snippets" "$work/before" && mkdir -p "$root/challenges.d" || die "$root cannot be written to; is the disk full?"
	while read -r app print names; do
		app_name "$app" && thumbprint "$print" && [ -n "$names" ] || die "what came in is not APP THUMBPRINT NAME..."
		for name in $names; do host_name "$name" || die "what came in is not a name of $app"; done
		# shellcheck disable=SC2086 # several names; they hold no wildcard
		stateless "$app" "$print" $names
	done <"$work/lines"
	taken=''
	for file in "$work"/snippets/*; do
		name=${file##*/}
		if cmp -s "$file" "$root/challenges.d/$name"; then
			rm -f "$file"
			result "${name%.*}" unchanged 0 0
		else
			taken=$taken,${name%.*}
			cp "$root/challenges.d/$name" "$work/before/$name" 2>/dev/null || : >"$work/before/$name"
		fi
	done
	[ -n "$taken" ] || return 0
	if ! run "$test"; then
		keep_output
		each unprepared "${taken#,}"
		return
	fi
	[ ! -e "$root/.owed" ] || die "the web server could not be reloaded the last time, and still cannot: look why"
	mv -f -T "$work/before" "$root/.owed" || die "$root cannot be written to; is the disk full?"
	place_snippets "$work/snippets"
	if ! run "$test"; then
		place_snippets "$root/.owed"
		place_by_halves
	fi
	if [ -z "$taken" ] || reload_server; then
		each written "${taken#,}"
		discard "$root/.owed"
		return
	fi
	keep_output
	place_snippets "$root/.owed"
	! reload_server || discard "$root/.owed"
	each unwritten "${taken#,}"
}

# $1: an app, or its file's name.
written() {
	result "${1%.*}" installed 0 0
}

unprepared() {
	result "$1" broken-before 0 0 "$message_quoted"
}

unwritten() {
	result "${1%.*}" failed 0 0 "$message_quoted"
}

# A killed run wrote snippets and did not come to the reload.
complete_snippets() {
	[ -d "$root/.owed" ] || return 0
	if ! { run "$test" && reload_server; }; then
		place_snippets "$root/.owed"
		run "$test" && reload_server || return 0
	fi
	discard "$root/.owed"
}

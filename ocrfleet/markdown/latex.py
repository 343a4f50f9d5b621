r"""LaTeX from outside: only known control words stay live; the others are shown.

A formula may come from a page that an attacker wrote. Viewers of Markdown render formulas, and some run commands that make links,
load files or define macros (`\href`, `\includegraphics`, `\input`, `\def`, `\csname`, `\require`, …). So there is a list of what
may stay: letters, signs, fonts, accents and structures of formulas.
"""

from __future__ import annotations

import re

_WORDS = frozenset(
    re.findall(
        "[A-Za-z]+",
        """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa varkappa lambda mu nu xi omicron pi varpi rho
    varrho sigma varsigma tau upsilon phi varphi chi psi omega digamma Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega
    varGamma varDelta varTheta varLambda varXi varPi varSigma varUpsilon varPhi varPsi varOmega aleph beth gimel daleth
    hbar hslash ell wp Re Im imath jmath partial nabla infty emptyset varnothing forall exists nexists neg lnot top bot angle
    measuredangle sphericalangle triangle square blacksquare Box Diamond lozenge blacklozenge bigstar star clubsuit diamondsuit
    heartsuit spadesuit sharp flat natural prime backprime complement degree circ bullet cdot cdots ldots dots dotsb dotsc dotsi
    dotsm dotso vdots ddots hdots surd checkmark maltese eth mho Finv Game Bbbk circledR circledS S P dag ddag dagger ddagger
    copyright pounds euro yen aa AA ae AE oe OE ss o O l L i j
    pm mp times div ast cap cup uplus sqcap sqcup vee lor wedge land setminus smallsetminus wr diamond bigtriangleup
    bigtriangledown triangleleft triangleright oplus ominus otimes oslash odot bigcirc amalg dotplus ltimes rtimes bowtie Join
    boxplus boxminus boxtimes boxdot circledast circledcirc circleddash divideontimes intercal barwedge veebar doublebarwedge
    curlyvee curlywedge Cap Cup
    leq le geq ge neq ne equiv sim simeq approx cong doteq propto prec succ preceq succeq ll gg lll ggg subset supset subseteq
    supseteq nsubseteq nsupseteq subsetneq supsetneq subseteqq supseteqq sqsubset sqsupset sqsubseteq sqsupseteq in notin ni owns
    vdash dashv models Vdash vDash Vvdash nvdash nvDash perp mid nmid parallel nparallel asymp smile frown leqslant geqslant lt gt
    nless ngtr nleq ngeq lessgtr gtrless lesssim gtrsim lessapprox gtrapprox approxeq thicksim thickapprox backsim triangleq
    circeq eqcirc bumpeq Bumpeq doteqdot risingdotseq fallingdotseq therefore because trianglelefteq trianglerighteq
    ntriangleleft ntriangleright vartriangle vartriangleleft vartriangleright between pitchfork colon coloneqq eqqcolon not
    leftarrow gets rightarrow to leftrightarrow Leftarrow Rightarrow Leftrightarrow uparrow downarrow updownarrow Uparrow
    Downarrow Updownarrow longleftarrow longrightarrow longleftrightarrow Longleftarrow Longrightarrow Longleftrightarrow
    implies impliedby iff mapsto longmapsto hookleftarrow hookrightarrow leftharpoonup leftharpoondown rightharpoonup
    rightharpoondown rightleftharpoons leftrightharpoons nearrow searrow swarrow nwarrow leadsto rightsquigarrow
    twoheadrightarrow twoheadleftarrow rightleftarrows leftrightarrows upharpoonright downharpoonright curvearrowleft
    curvearrowright circlearrowleft circlearrowright nleftarrow nrightarrow nLeftarrow nRightarrow nleftrightarrow
    xleftarrow xrightarrow xleftrightarrow xLeftarrow xRightarrow xmapsto xhookrightarrow xrightleftharpoons
    sum prod coprod int iint iiint iiiint oint oiint bigcap bigcup bigsqcup bigvee bigwedge bigoplus bigotimes bigodot biguplus
    smallint limits nolimits
    arccos arcsin arctan arg cos cosh cot coth csc deg det dim exp gcd hom inf ker lg lim liminf limsup ln log max min Pr sec sin
    sinh sup tan tanh arctg ctg tg injlim projlim varliminf varlimsup bmod pmod mod pod operatorname
    frac dfrac tfrac cfrac binom dbinom tbinom sqrt root over atop choose brace brack overset underset stackrel substack sideset
    overline underline overbrace underbrace overbracket underbracket overrightarrow overleftarrow overleftrightarrow
    underrightarrow underleftarrow widehat widetilde widecheck hat check tilde acute grave dot ddot dddot ddddot breve bar vec
    mathring cancel bcancel xcancel sout boxed fbox tag notag nonumber
    left right middle big Big bigg Bigg bigl Bigl biggl Biggl bigr Bigr biggr Biggr bigm Bigm biggm Biggm langle rangle lfloor
    rfloor lceil rceil lgroup rgroup lmoustache rmoustache lbrace rbrace lbrack rbrack lvert rvert lVert rVert vert Vert
    ulcorner urcorner llcorner lrcorner llbracket rrbracket backslash
    mathrm mathbf mathit mathsf mathtt mathcal mathbb mathfrak mathscr mathnormal boldsymbol bm pmb bold rm bf it sf tt cal frak
    Bbb scr sl text textrm textbf textit textsf texttt textnormal textup textsc textmd textsl textsubscript textsuperscript emph
    mbox hbox textstyle displaystyle scriptstyle scriptscriptstyle tiny scriptsize footnotesize small normalsize large Large LARGE
    huge Huge mathop mathrel mathbin mathord mathopen mathclose mathpunct mathinner
    quad qquad enspace enskip thinspace medspace thickspace negthinspace negmedspace negthickspace space nobreakspace
    hline hdashline hfill multicolumn multirow begin end ce pu
    textdegree textquoteleft textquoteright textquotedblleft textquotedblright textendash textemdash textellipsis
    textbackslash textasciitilde textasciicircum textless textgreater textbar textunderscore textdollar textsterling textregistered
    texttrademark lq rq
    """,
    )
)
_ENVIRONMENTS = frozenset(
    re.findall(
        "[A-Za-z]+",
        """
    equation align alignat aligned alignedat gather gathered multline split eqnarray array matrix pmatrix bmatrix Bmatrix vmatrix
    Vmatrix smallmatrix cases rcases dcases drcases subarray tabular
    """,
    )
)
#: Control symbols: spaces, escaped signs, accents, the end of a line.
_SYMBOLS = frozenset(r"""\,;:!>|{}#$%&_-'`"^~=./ """)

_ENDS = r"(?:begin|end)\s*+\{\s*+(?P<environment>[^{}]{0,40}+)\}"
#: Space of less than a hundred units.
_SPACE = r"(?P<space>hspace\*?\s*+\{\s*+-?[0-9]{0,2}(?:\.[0-9]{0,3})?\s*+(?:em|ex|mm|cm|in|pt|mu|pc)\s*+\})"
_COMMAND = re.compile(
    rf"\\(?:{_ENDS}"
    rf"|{_SPACE}"
    r"|(?P<word>[A-Za-z@]++)|(?P<symbol>(?s:.))?)"
    # TeX reads ^^5c as a backslash.
    r"|(?P<carets>\^\^++)"
    # A reader of Markdown would replace it by its character: maybe a backslash.
    r"|&(?=#?\w++;)"
)
#: A command within a text, where a backslash may be escaped by another.
_COMMAND_IN_TEXT = re.compile(
    rf"(?<!\\)(?P<backslashes>\\++)(?:{_ENDS}|{_SPACE}|(?P<word>[A-Za-z@]++))"
    r"|(?P<carets>\^\^++)|&(?=(?:#0*+92|#[xX]0*+5[cC]|bsol);)"
)
#: What viewers take for the beginning of a formula, also those that find formulas only after they have read the Markdown.
_FORMULA = re.compile(r"\$|\\[(\[]|\\begin|&(?:#|dollar;|bsol;|lpar;|lsqb;|lbrack;)")


def inert(tex: str) -> str:
    r"""Return the LaTeX of a formula in which only known commands are live: `\href` becomes `\backslash href`."""
    return _COMMAND.sub(_in_formula, tex)


def _in_formula(match: re.Match[str]) -> str:
    found = match.groupdict()
    if found["carets"]:
        return r"\wedge " * len(found["carets"])
    if match[0] == "&":
        return "& "
    if found["symbol"] not in _SYMBOLS and not _is_known(match):
        return rf"\backslash {match[0][1:]}"
    # A reader of Markdown that knows no formulas takes one of two backslashes away: no command may be left.
    following = match.string[match.end() : match.end() + 1]
    return f"{match[0]} " if found["symbol"] == "\\" and following.isalpha() else match[0]


def shown(text: str, *, markdown: bool = True) -> str:
    r"""Return a text in which unknown commands are no LaTeX for any viewer.

    Where a viewer may find a formula, a space follows the backslash: `\ href`. In Markdown, the backslash is escaped: `\\href`.
    """
    if "\\" not in text and "&" not in text and "^^" not in text:
        return text
    formula = _FORMULA.search(text) is not None

    def replaced(match: re.Match[str]) -> str:
        if match["carets"]:
            return " ".join(match["carets"]) if formula else match["carets"]
        if match[0] == "&":
            return "&amp;" if markdown else "&"
        if _is_known(match):
            return match[0]
        backslashes = match["backslashes"]
        command = match[0].removeprefix(backslashes)
        return backslashes + "\\" * (markdown and len(backslashes) % 2) + " " * formula + command

    return _COMMAND_IN_TEXT.sub(replaced, text)


def _is_known(match: re.Match[str]) -> bool:
    if match["environment"] is not None:
        return match["environment"].strip().removesuffix("*") in _ENVIRONMENTS
    return match["space"] is not None or (match["word"] in _WORDS and match["word"] not in {"begin", "end"})

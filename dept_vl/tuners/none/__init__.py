"""No method: settings in `config`; the computation is that of a folded one, none."""

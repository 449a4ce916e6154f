"""Runs in a sandbox of `data-analysis`: one table through every library, and the results agree."""

import io
import sqlite3

import duckdb
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.express as px
import polars as pl
import pyarrow.parquet as pq
import seaborn as sns
import statsmodels.formula.api as smf
from scipy import stats
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import train_test_split

x = np.arange(200.0)
table = pd.DataFrame({"x": x, "group": np.where(x % 2 == 0, "even", "odd"), "y": 3 * x + 1})

table.to_parquet("table.parquet")
assert pq.read_metadata("table.parquet").num_rows == 200
frame = pl.read_parquet("table.parquet")
by_polars = dict(frame.group_by("group").agg(pl.col("y").sum()).iter_rows())
by_duckdb = dict(duckdb.sql("SELECT \"group\", sum(y) FROM 'table.parquet' GROUP BY 1").fetchall())
assert by_polars == by_duckdb == table.groupby("group").y.sum().to_dict()

with sqlite3.connect("table.db") as database:
    table.to_sql("t", database, index=False)
    assert pd.read_sql("SELECT count(*) AS n FROM t", database).n[0] == 200

assert abs(stats.linregress(table.x, table.y).slope - 3) < 1e-9
assert abs(smf.ols("y ~ x", table).fit().params["x"] - 3) < 1e-9
train, test = train_test_split(table, random_state=0)
assert RandomForestRegressor(20, random_state=0, n_jobs=2).fit(train[["x"]], train.y).score(test[["x"]], test.y) > 0.99

table.to_excel("table.xlsx", index=False)
assert pd.read_excel("table.xlsx").equals(table.assign(x=table.x.astype(int), y=table.y.astype(int)))

sns.scatterplot(table, x="x", y="y", hue="group")
picture = io.BytesIO()
plt.savefig(picture)
assert picture.getvalue().startswith(b"\x89PNG")
assert "plotly" in px.line(table, x="x", y="y").to_html(include_plotlyjs=False).lower()
print("proven")

"""Bodies of requests into arrays, predictions into bodies of answers; all by the model's signature, without any I/O.

signature   what the model wants and gives          arrays   JSON values into one field's array, or why not
rows        /predict and the row-shaped forms       mlflow   /invocations
v2          Open Inference Protocol                 answers  predictions into plain JSON values
"""
